"""AWS's IAM and STS as far as S3's users need them: users, keys, groups, roles, policies, temporary credentials.

One table of operations (`operations`); each is a function of a call in the module of its kind.  A call changes only
what belongs to the caller's own account.  Decisions are `auth.access`'s, documents those of `auth.entities`. May import
`api` and what is below.
"""
