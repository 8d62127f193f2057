"""The Tenant's status, derived from spec, observation and previous status; pure.

`conditions` keeps transition times, `pools` and `capacity` reduce drives to figures, `derive` puts it together,
`patch` finds what has to be written.
"""
