"""The storage pod: S3 in, erasure-coded shards on drives out. `docs/architecture.md` is the map."""
