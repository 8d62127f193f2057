"""Simulation: the real object layer over simulated drives, links and clocks; one seed, one history.

`plan` draws from the seed what a run is made of, `cluster` builds it, `workload` has clients use it while `faults`
breaks it within what `budget` allows, `ending` turns the faults off and demands full repair, `checkers` judge what was
observed (`history`).  `simulation.replay(seed)` is the whole of it; `python -m holdfast_server.testing.sim` runs many.

Everything that decides is the server's own code: quorum, commit, listing, multipart, healing, adoption, buckets.
What is simulated is only what lies below the drive port and the clock.  Nothing here is used by a running server.
"""
