"""Peers: the other pods of the tenant, and their drives as if they were local.

`port` is what callers see.  Pure: `frames` (the byte stream), `messages` (what is said), `handshake` (who says
it).  With sockets: `connection` (both ends), `channel` and `link` (the asking end), `remote` (the ports over
it), `network` (all peers), `dispatch` and `server` (the answering end), `naming` (names to addresses).
May import `drives.port`, `clock`, `contract`.
"""
