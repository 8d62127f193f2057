"""`holdfast-local run`, `stop` and `status`: the whole stand-in cluster as one command.

Starts the API server and the node, runs the real operator with its own restricted account, submits a file of
manifests the way kubectl does, waits until every Tenant in it is Ready, and ends everything again.  Creates no
object a user of a real cluster would not create: the CRD, the operator's RBAC, the file's documents.
"""
