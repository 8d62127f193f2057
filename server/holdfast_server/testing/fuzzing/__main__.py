"""One target under atheris, guided by the coverage of the server's code:

    python -m holdfast_server.testing.fuzzing "chunked bodies" -max_total_time=600

What follows the name is libFuzzer's.  Atheris is no dependency of this project: `pip install atheris` beside it.  It
ends the process by itself; an input that fails is kept in a `crash-…` file of the working folder.
"""

from __future__ import annotations

import importlib
import sys


def main(arguments: list[str]) -> int:
    try:
        atheris = importlib.import_module("atheris")
    except ImportError:
        print("atheris is not installed", file=sys.stderr)
        return 2
    with atheris.instrument_imports(include=["holdfast_server.s3", "holdfast_server.auth"]):
        from holdfast_server.testing.fuzzing.target import ROUND_EXAMPLES, one_round
        from holdfast_server.testing.fuzzing.targets import TARGETS
    named = {target.name: target for target in TARGETS}
    if not arguments or arguments[0] not in named:
        print(f"name one of: {', '.join(named)}", file=sys.stderr)
        return 2
    target = named[arguments[0]]
    with target.checking() as check:
        fuzz = one_round(target, check, 0, ROUND_EXAMPLES)
        atheris.Setup([sys.argv[0], *arguments[1:]], fuzz.hypothesis.fuzz_one_input)  # type: ignore[attr-defined]
        atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
