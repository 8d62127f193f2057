"""Structural schemas: pruning, defaulting, validation and CEL rules; pure functions on dictionaries."""
