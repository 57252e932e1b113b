"""Factors: pure step functions from curated tables to implied volatilities, daily factors and their scores."""
