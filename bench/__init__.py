"""`make bench`: what a request costs, in CPU of all daemons, beside throughput and latency.

`target` starts a tenant of real pods (or takes any S3 endpoint), `client` is the load generator, `workloads` what
it sends, `report` the table and the JSON.  Figures are CPU per operation and per GB, because wall time on a
shared machine says little; targets are measured in turn, several rounds, and the median round is reported.
"""
