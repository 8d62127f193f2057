"""Drives: where records and shards rest.  `port` is the interface; a local drive, a drive of another pod
(`peers/`) and the in-memory drive of `testing/` are one type to their callers.

May import `clock`, `contract`.  Knows nothing of S3, of quorums or of what is inside a record.
"""
