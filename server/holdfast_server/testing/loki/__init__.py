"""A real Grafana Loki as a client of the store: what went in must come out, line by line.

`chart_values` makes the configuration out of the example values, `lines` the lines and the comparison, `program` runs
the binary.  Loki itself is not here: whoever runs this brings the binary.
"""
