"""Time and chance, as a port, so that the object layer can be run under a simulated clock and a fixed seed.

`port` is what the rest of the server takes, `system` the real one, `stamp` the order of writes.
"""
