"""Notifications: triggers over frames, an outbox that survives a crash, channels that deliver. It knows no lake."""
