"""What S3 means: verified requests become calls of the object layer, their outcomes become responses.

One file per verb family (`buckets`, `objects_put`, `objects_get`, `objects_delete`, `objects_copy`, `listing`,
`multipart`, `off_answers`), a table in `dispatch`, the pod's cached configuration in `buckets_cache` and
`identities`, and the HTTP front end in `server`.  Handlers take a `VerifiedRequest` and `Services` and return
a `Response`; only `server` and `http` know connections.
May import `objects.port`, `objects.record`, `auth`, `s3`, `clock`, `contract`.  Knows no drive, no stamp, no peer.
"""
