"""Machinery that breaks real pods on purpose and knows what they must still hold: for `tests/crash` and `make soak`.

`ledger` remembers what was acknowledged, `traffic` makes operations and tells the ledger, `rounds` kills pods under
them, `power_loss` cuts the power below RocksDB, `inspection` looks at the drives of stopped pods, `soak` mixes
everything for a long time.  May import anything of the server; nothing of the server imports it.
"""
