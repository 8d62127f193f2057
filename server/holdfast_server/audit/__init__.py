"""The audit log: one JSON line per request, to stdout, a file or a webhook.

`record` says what stands in a line and what never does (pure), `outlet` queues lines within a bound and hands them
on, `file_sink`, `stdout_sink` and `webhook_sink` take them, `log` is what the rest of the pod knows.  May import the
contract only; who is asked for what is found out by `api`.
"""
