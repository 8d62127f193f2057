"""The life of one storage pod: what it reads at the start and follows later, what becomes of its drives,
and how well it and the tenant are.

Pure: `membership` (which pod am I), `adoption` (what may become of a blank drive), `health`, `standalone`
(a pod by hand).  With I/O: `config_file`, `key_files`, `slot_book`, `local_drives`.  `log_lines` is the form
of the log.  May import `peers`, `drives`, `clock`, `contract`; constructs none of the layers (see `wiring`).
"""
