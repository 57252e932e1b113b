"""Raw to curated: pure functions from the vendor's rows to one standard schema. Nothing here reads or writes a file."""
