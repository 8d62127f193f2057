"""What one request costs, counted: messages, syncs, copies, calls; figures that do not depend on how busy a machine is.

`python -m bench.counts` runs four whole pods inside one process, over real drives and real connections between them,
sends one request at a time and prints what each took, in all pods together.  `bounds.toml` has the most that each
may take; `tests/counts` holds the code to it.

`operations` is what is asked, `steady_loop` keeps timers out of the way, `observing` counts, `counting_shim.c` counts
below Python, `report` compares and prints.  Not here: time, which is `bench`'s.
"""
