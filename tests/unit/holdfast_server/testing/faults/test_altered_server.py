"""What the altered server shortens must be what a pod goes by: else crash tests of minutes never see it happen."""

import pytest

from holdfast_server.testing.faults import altered_server
from holdfast_server.wiring import lifecycle


def test_files_that_nothing_names_are_given_up_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifecycle, "HealSettings", lifecycle.HealSettings)  # put back afterwards
    assert lifecycle.heal_settings(None).orphan_age_seconds > altered_server.ORPHAN_AGE_SECONDS
    altered_server.give_up_nameless_files_soon()
    assert lifecycle.heal_settings(None).orphan_age_seconds == altered_server.ORPHAN_AGE_SECONDS
