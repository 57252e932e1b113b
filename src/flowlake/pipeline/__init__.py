"""The plan of steps, and the executors that run it."""
