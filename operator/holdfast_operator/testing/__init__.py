"""A cluster and a store in memory, for tests of the operator: the ports with nothing behind them.

`memory_kube` keeps objects as an API server does, `memory_store` plays StatefulSet controller, storage pods and
the store behind them.  Not part of the running operator; nothing outside tests imports it.
"""
