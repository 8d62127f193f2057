"""S3 as bytes and values: requests, signatures, payload framing, checksums, documents, errors.

No I/O and no clock: bytes and values in, values and bytes out; time, keys and limits come as arguments.
May import the standard library's pure parts, msgspec, awscrt's and xxhash's kernels, and
`holdfast_server.contract`.
What a bucket or an object *means* is not known here: that is `api/`.
"""
