"""`make fuzz`: the tests of files that are damaged at random, for a given time."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    """Run the tests for `--seconds` in all; the exit code is that of pytest."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600, help="of all kinds of files together")
    parser.add_argument("-k", dest="kinds", default="", help="the tests to run, as pytest's -k")
    args = parser.parse_args()
    words = ["-q", "-m", "slow", "-k", args.kinds, "--timeout", str(args.seconds + 600)]
    return subprocess.run(
        [sys.executable, "-m", "pytest", *words, str(ROOT / "tests" / "test_fuzz.py")],
        cwd=ROOT,
        env=os.environ | {"WASSILY_FUZZ_SECONDS": str(args.seconds)},
    ).returncode


if __name__ == "__main__":
    sys.exit(main())
