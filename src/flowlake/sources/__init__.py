"""Where the raw files come from: the bucket, and one module per vendor that turns a file's bytes into its raw table."""
