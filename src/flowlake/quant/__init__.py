"""Option mathematics on arrays: float64 in, float64 out, compiled by numba; no tables, no files, no network."""
