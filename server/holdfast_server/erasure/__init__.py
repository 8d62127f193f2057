"""Erasure coding: stripes to shards and back.  Pure: bytes in, bytes out."""
