"""Buckets, policies and users of a running tenant, made through the store's own API.

`plan` (pure) says which calls are due, `policy` (pure) writes the policy of a user's buckets, `client` makes
signed calls, `execute` makes them in order and turns each outcome into the state of one item.
"""
