"""Evidence joined into one score per underlying, and the score's calibration to a probability."""
