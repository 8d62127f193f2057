"""The stand-in node: controllers and a kubelet that run pods as local processes.

Speaks to the API server over HTTP like any other client and imports nothing of it.  Pure decisions
(`statefulset_plan`, `probe_state`, `backoff`, `environment`, `hosts_table`, `pod_status`) are apart from what
touches processes, files and sockets.  Not done here: images, network policies, resource limits,
securityContext (every pod runs as the user who started the cluster, on the host's file system and network).
"""
