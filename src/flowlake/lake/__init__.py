"""The lake: one Parquet file per dataset and session, published atomically, read as of a moment."""
