"""What every other part stands on: errors, settings, the trading calendar."""
