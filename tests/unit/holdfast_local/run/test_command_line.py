"""The command line of `holdfast-local`."""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast_local import main as main_module
from holdfast_local.main import build_parser, main


def test_what_is_given_is_taken() -> None:
    given = ["run", "--tenant", "t.yaml", "--port", "7443", "--timeout", "1.5", "--refresh", "0", "--nodes", "4"]
    options = build_parser().parse_args(given)
    assert (options.tenant, options.port, options.timeout, options.refresh) == (Path("t.yaml"), 7443, 1.5, 0.0)
    assert options.nodes == 4


@pytest.mark.parametrize(
    "wrong",
    [
        ["--port", "80000"],
        ["--port", "0"],
        ["--port", "http"],
        ["--timeout=-1"],
        ["--timeout", "soon"],
        ["--timeout", "nan"],
        ["--refresh=-1"],
        ["--refresh", "inf"],
        ["--nodes", "0"],
        ["--nodes", "65"],
    ],
)
def test_what_cannot_be_ends_with_2_and_names_the_option(
    wrong: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["run", "--tenant", str(tmp_path / "none.yaml"), "--state", str(tmp_path / "state"), *wrong])
    assert ended.value.code == 2
    assert f"argument {wrong[0].partition('=')[0]}: " in capsys.readouterr().err


def test_interrupted_while_it_is_loaded_it_says_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(main_module, "_execute", interrupted)
    with pytest.raises(SystemExit) as ended:
        main(["run", "--tenant", "t.yaml"])
    assert (ended.value.code, capsys.readouterr()) == (130, ("", ""))
