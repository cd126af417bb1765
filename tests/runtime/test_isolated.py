"""Code that crashes or hangs in a process of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from ufuser.runtime.isolated import Outcome, run_isolated


def test_a_value() -> None:
    assert run_isolated("value = [len(a) for a in arguments]", "abc", "") == Outcome(value=[3, 0])


def test_what_the_code_prints_is_not_the_answer() -> None:
    assert run_isolated("print('noise'); value = 1; print('{}', end='')").value == 1


def test_an_error_is_one_line() -> None:
    assert run_isolated("raise ValueError('one\\ntwo')") == Outcome(error="one")


def test_a_missing_module() -> None:
    outcome = run_isolated("import not_there.part")
    assert (outcome.missing, outcome.died) == ("not_there", False)


def test_the_signal_that_kills_it_is_named() -> None:
    outcome = run_isolated("import os, sys; print('cpuinfo: no', file=sys.stderr, flush=True); os.abort()")
    assert outcome == Outcome(error="the process died of SIGABRT (cpuinfo: no)", died=True)


def test_a_crash_at_the_end() -> None:
    """ONNX Runtime has crashed in its destructors on Orin: the work was done."""
    outcome = run_isolated("import atexit, os; atexit.register(os.abort); value = 1")
    assert outcome == Outcome(error="after it had worked, the process died of SIGABRT", died=True)


def test_a_process_that_hangs_is_killed() -> None:
    outcome = run_isolated("import time; time.sleep(60)", seconds=0.5)
    assert outcome == Outcome(error="it did not answer within 0.5 s", died=True)


def test_an_exit_without_an_answer() -> None:
    assert run_isolated("import os; os._exit(3)").error == "the process ended with code 3"


def test_it_searches_where_this_process_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "only_here.py").write_text("x = 5\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert run_isolated("import only_here; value = only_here.x").value == 5
