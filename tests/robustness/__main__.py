"""`python -m tests.robustness`: damaged inputs for every reader, counted in a table. docs/reliability.md."""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from pathlib import Path


def get_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.robustness", description=__doc__)
    parser.add_argument("--minutes", type=float, default=0.5, help="in all (default: 0.5)")
    parser.add_argument("--cases", type=int, metavar="N", help="for each reader, instead of --minutes")
    parser.add_argument(
        "--least", type=int, default=10, metavar="N", help="for each reader, whatever the time (default: 10)"
    )
    parser.add_argument("--seed", type=int, help="repeats a run (default: drawn)")
    parser.add_argument(
        "--reader", action="append", metavar="NAME", help="one reader; may be given again (default: all)"
    )
    parser.add_argument("--case", type=int, metavar="INDEX", help="with --seed and --reader: repeat one case")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="worker processes (default: 1)")
    parser.add_argument(
        "--keep", type=Path, metavar="DIR", help="for inputs that break something (default: a new one)"
    )
    parser.add_argument("--out", type=Path, metavar="TABLE.md", help="also write the table to this file")
    parser.add_argument(
        "--guided", action="store_true", help="the pure parsers, guided by coverage: needs atheris"
    )
    parser.add_argument("--worker", metavar="JOB", help=argparse.SUPPRESS)
    return parser


def main() -> int:
    """Exit code 0 where every input was accepted or refused in one line, else 1."""
    args = get_parser().parse_args()
    if args.worker:
        from tests.robustness.worker import main as work

        work(json.loads(args.worker))
        return 0
    if args.guided:
        from tests.robustness.guided import main as guided

        return guided(args.minutes)
    from tests.robustness.readers import READERS
    from tests.robustness.run import run

    names = args.reader or list(READERS)
    unknown = sorted(set(names) - set(READERS))
    if unknown:
        print(f"error: --reader {unknown[0]}: expected one of {', '.join(READERS)}", file=sys.stderr)
        return 2
    seed = random.SystemRandom().randrange(10**9) if args.seed is None else args.seed
    print(f"--seed {seed}", flush=True)
    keep = args.keep or Path(tempfile.mkdtemp(prefix="ufuser-robustness-"))
    if args.case is not None:
        table = run(names, seed, seconds=0, most=1, first=args.case, keep=keep)
    elif args.cases is not None:
        table = run(names, seed, seconds=0, least=args.cases, most=args.cases, jobs=args.jobs, keep=keep)
    else:
        table = run(names, seed, seconds=args.minutes * 60, least=args.least, jobs=args.jobs, keep=keep)
    print(table.markdown())
    if not table.faults and args.keep is None:
        keep.rmdir()
    if args.out:
        args.out.write_text(f"{table.markdown()}\n", encoding="utf-8")
    return 1 if table.faults else 0


if __name__ == "__main__":
    sys.exit(main())
