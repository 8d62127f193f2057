"""Placement: which erasure set a key belongs to.  Pure functions of the key and the pool map."""
