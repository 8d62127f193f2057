"""Where the parts of a storage pod are constructed and joined; nothing else in the server builds another layer.

`inputs` is what a pod is told (a tenant's files, or a command line), `drive_table` finds the drives of a set,
`storage_pod` builds everything and takes it down again, `process` tunes the process.
"""
