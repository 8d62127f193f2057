"""Peers: the other pods of the tenant, and their drives as if they were local.

`port` is what callers see, `wire` the frames (pure), `server` and `client` the two ends, `drive` the drive
port over a connection.  May import `drives.port`, `clock`, `contract`.
"""
