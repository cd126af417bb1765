"""`ufuser doctor`: what this machine has, what is missing, and the command that installs it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict

from ufuser.runtime.checks import Check, all_checks
from ufuser.runtime.command import Parser
from ufuser.runtime.console import print_json
from ufuser.runtime.machine import Machine

BROKEN = 1
"""Exit code if the default path does not work."""


def get_parser(prog: str) -> Parser:
    """The command line, apart from its execution."""
    parser = Parser(
        prog=prog,
        description="Check Python, OpenCV, engines, GPU, Jetson and cameras. Exit code 0 if the default path works, "
        "which is fusing with ONNX Runtime on the CPU; else 1. Everything else is optional.",
    )
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Run all checks and print them; the exit code."""
    checks = list(all_checks())
    healthy = works(checks)
    machine = Machine.here()
    if args.json:
        found = {"healthy": healthy, "machine": asdict(machine), "checks": [asdict(c) for c in checks]}
        print_json(found)
    else:
        print(f"{machine.system}, {machine.cpu}, {machine.cores} cores")
        print(table(checks))
        print(verdict(checks))
    return 0 if healthy else BROKEN


def works(checks: Sequence[Check]) -> bool:
    """Whether everything that the default path needs works."""
    return all(check.works for check in checks if check.needed)


def table(checks: Sequence[Check]) -> str:
    """The findings by group, each failure with its remedy."""
    width = max(len(check.name) for check in checks)
    lines: list[str] = []
    for group in dict.fromkeys(check.group for check in checks):
        lines.append(f"\n{group}")
        for check in (c for c in checks if c.group == group):
            mark = "ok" if check.works else "FAILS" if check.needed else "-"
            lines.append(f"  {mark:5} {check.name:{width}}  {check.found}")
            if check.remedy:
                lines.append(f"        {'':{width}}  -> {check.remedy}")
    return "\n".join(lines)


def verdict(checks: Sequence[Check]) -> str:
    """The last line."""
    failing = [check.name for check in checks if check.needed and not check.works]
    if failing:
        return f"\nThe default path does not work: {', '.join(failing)}."
    return "\nThe default path works: `ufuser demo` shows it."
