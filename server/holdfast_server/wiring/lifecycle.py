"""How long lifecycle's days are: real ones, or what a test has asked for.  Read once, at the pod's start."""

from __future__ import annotations

from holdfast_server.contract.config import DebugConfig
from holdfast_server.heal.settings import HealSettings
from holdfast_server.s3.expiry import Calendar

PASSES_PER_DAY = 10
"""While days are shorter than real ones: how late something may be by."""


def calendar(debug: DebugConfig | None) -> Calendar:
    if debug is None or debug.lifecycle_day_seconds is None:
        return Calendar()
    return Calendar(int(debug.lifecycle_day_seconds * 1000))


def heal_settings(debug: DebugConfig | None) -> HealSettings:
    if debug is None or debug.lifecycle_day_seconds is None:
        return HealSettings()
    return HealSettings(bucket_pass_seconds=debug.lifecycle_day_seconds / PASSES_PER_DAY, bucket_share=0.5)
