"""`python -m bench.counts` prints what each request takes and what is above its bounds."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

from bench.counts import counting, report
from holdfast_server.testing.faults.power_loss import NoCompiler, build_shim

LIBRARY = "HOLDFAST_COUNTING_LIBRARY"
"""Set for the process that counts: where its preloaded library is."""
SOURCE = Path(__file__).with_name("counting_shim.c")
BOUNDS = Path(__file__).with_name("bounds.toml")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.counts", description=__doc__)
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument(
        "--bounds", action="store_true", help="what was counted, with some slack, as bounds.toml has it"
    )
    options = parser.parse_args()
    if LIBRARY not in os.environ:
        _again_with_library()
    with tempfile.TemporaryDirectory() as folder:
        counted = counting.run(Path(folder), os.environ[LIBRARY])
    bounds = tomllib.loads(BOUNDS.read_text())
    exceeded = {name: report.exceeded(counts, bounds.get(name, {})) for name, counts in counted.items()}
    if options.json:
        json.dump({"counted": counted, "exceeded": exceeded}, sys.stdout, indent=1)
    elif options.bounds:
        print(report.as_bounds(counted))
    else:
        print(report.table(counted))
        print(*(f"{name}: {'; '.join(told)}" for name, told in exceeded.items() if told), sep="\n")


def _again_with_library() -> None:
    """As a process into which the library is preloaded; without a compiler what it counts is left out."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, LIBRARY: ""}
        try:
            library = str(build_shim(Path(folder), SOURCE))
            environment |= {LIBRARY: library, "LD_PRELOAD": library}
        except NoCompiler as error:
            print(f"not counted below Python: {error}", file=sys.stderr)
        arguments = [sys.executable, "-m", "bench.counts", *sys.argv[1:]]
        sys.exit(subprocess.run(arguments, env=environment, check=False).returncode)


if __name__ == "__main__":
    main()
