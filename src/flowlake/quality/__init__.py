"""Is a partition what its declaration says, do the datasets agree with each other, and is anything missing?"""
