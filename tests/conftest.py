"""For all tests: what holds wherever `hypothesis` is used.

No test may hang on how fast a machine is: an example that takes long, on one with a load of twenty, is no failure.
"""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")
