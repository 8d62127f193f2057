"""Certificates of a tenant: its own authority, what that signs, what the user brings, and when each is due.

Everything but `minting` is pure: bytes and the time come in as arguments.  May import `cryptography` and the spec.
"""
