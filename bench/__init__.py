"""`make bench`: what a request costs, in CPU of all daemons, beside throughput and latency.

`target` is what is measured: a tenant of real pods, or any S3 endpoint with its processes (`processes`).  `client` is
the load generator, `wire` its HTTP, `nothing` an endpoint without a store that shows what the generator can do.
`workloads` says what is sent, `report` makes the tables and the JSON, `plot` the figures.  Figures are CPU per
operation and per GB, because wall time on a shared machine says little; targets are measured in turn, several rounds,
and the median round is reported.

Commands of their own: `healing`, `pod_down`, `listing`, `upkeep` (start and rest), `bucket_walk`, `operator_load`.
"""
