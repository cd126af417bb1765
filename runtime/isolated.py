"""Python code in a process of its own, for what may abort the interpreter: a crash there is a finding here."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

from ufuser.runtime.errors import first_line

_CHILD = """
import json, sys
path, code, arguments = json.loads(sys.argv[1])
sys.path[:] = path
names = {"arguments": arguments}
try:
    exec(code, names)
    answer = {"value": names["value"]}
except ModuleNotFoundError as e:
    answer = {"error": str(e) or "no such module", "missing": e.name or ""}
except BaseException as e:
    answer = {"error": (str(e).strip() or type(e).__name__).splitlines()[0][:200]}
print("\\n" + json.dumps(answer), flush=True)
"""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of the code."""

    value: Any = None
    error: str = ""
    """One line; "" if the code ended well."""
    missing: str = ""
    """The module that is not installed, if that was the error."""
    died: bool = False
    """Whether the process was ended by a signal or took too long."""


def run_isolated(code: str, *arguments: str, seconds: float = 60) -> Outcome:
    """Run code with this interpreter and its search path.

    Args:
        code: finds its `arguments`, a list of texts, and sets `value` to something that JSON holds.
        arguments: for the code.
        seconds: after which the process is killed.
    """
    words = [sys.executable, "-c", _CHILD, json.dumps([sys.path, code, arguments])]
    try:
        done = subprocess.run(
            words, capture_output=True, text=True, errors="replace", timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired:
        return Outcome(error=f"it did not answer within {seconds:g} s", died=True)
    except OSError as e:
        return Outcome(error=first_line(e))
    said = (done.stderr.strip().splitlines() or [""])[-1][:200]
    if done.returncode < 0:
        try:
            name = signal.Signals(-done.returncode).name
        except ValueError:
            name = f"signal {-done.returncode}"
        when = "after it had worked, " if '{"value"' in done.stdout else ""
        return Outcome(error=f"{when}the process died of {name}{f' ({said})' if said else ''}", died=True)
    try:
        return Outcome(**json.loads(done.stdout.strip().splitlines()[-1]))
    except (IndexError, ValueError, TypeError):  # it ended itself without an answer
        return Outcome(error=f"the process ended with code {done.returncode}{f' ({said})' if said else ''}")
