"""What is there: `cluster` lists the tenant's objects, `pods` reads them, `health` asks the storage pods and
`redundancy` (pure) merges their answers into one view.
"""
