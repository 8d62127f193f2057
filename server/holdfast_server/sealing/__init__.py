"""Encryption of objects at rest: which key, wrapped how (`envelope`), and how bytes are sealed (`chunks`).

Pure, and below everything that stores: may import `contract` and the `cryptography` package, nothing else.
docs/decisions/0012-encryption.md has the design and what it does not protect against.
"""
