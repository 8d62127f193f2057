"""Stock S3 clients put through the same operations, and the table of what came of it.

`operations` says what an operation is and compares the bytes, `driver` talks to a client's program, `table` keeps the
table of docs/s3-compatibility.md.  The programs, one per client, stand in `tests/clients`.
"""
