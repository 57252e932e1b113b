"""Outcomes that follow signals, and an evaluation that would rather abstain than flatter."""
