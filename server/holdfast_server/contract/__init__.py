"""What the operator, the stand-in cluster's tests and the pods agree on, as values without I/O.

`config` is the file a pod reads, `geometry` the cut of drives into erasure sets, `health` the JSON a pod
answers, `admin` the JSON it takes, `names` the fixed names and ports.  This package imports nothing but
msgspec and the standard library's pure parts, because the operator may import it and nothing else of the
server.
"""
