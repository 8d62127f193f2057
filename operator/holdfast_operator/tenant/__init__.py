"""A Tenant as typed values: `spec` says what there is, `parse` checks a body and reports every fault at once.

Pure: no I/O, no clock, no randomness.  May import the contract's geometry and names.
"""
