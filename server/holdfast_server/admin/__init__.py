"""The admin API of `contract.admin`: users, policies and health as JSON, on the S3 port, signed.

`handler` answers the requests; what it stores are documents that `api.identities` reads.
May import `api`, `auth`, `s3`, `objects.port`, `contract`.
"""
