"""Objects: versions, quorum, stripes.  Above the drive port, below the meaning S3 gives things.

`record` is what is kept of a version, `quorum` decides (pure), `store` is the façade the API layer calls;
`writing` (`stripes`, `coding`), `reading`, `listing`, `multipart`, `versions`, `documents`, `healing` are its parts.
May import `drives.port`, `peers.port`, `placement`, `erasure`, `clock`, `contract`.
"""
