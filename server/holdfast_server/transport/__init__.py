"""What lies between sockets and protocols: accepting connections, plain or TLS, and the TLS settings of both ends.

May import nothing of the server; both front doors of a pod, S3 and peers, stand on it.
"""
