"""Healing in the background: missed writes within seconds, a replacement drive in full.

`service` decides which register is next; `objects.healing` does one.  May import `objects`, `drives.port`, `clock`.
"""
