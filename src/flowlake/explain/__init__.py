"""Reasons in plain English, built from the numbers that made the score and from nothing else."""
