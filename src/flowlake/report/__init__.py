"""What a person reads: tables for the terminal, and the list of signals with their reasons."""
