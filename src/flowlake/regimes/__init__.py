"""The market's regime: fitted on the past, filtered forward, never smoothed."""
