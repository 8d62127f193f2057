"""Who asks and whether they may: a `Request` becomes a `VerifiedRequest`, policies decide.

Pure like `s3/`, which it may import: the caller passes in time, keys and policies, all from memory.
Handlers in `api/` accept only a `VerifiedRequest`, so no request reaches them unchecked.
Storing users and policies is not done here.
"""
