"""Damaged inputs, for half a minute; and that the harness sees each kind of fault."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ufuser.runtime.errors import InputError

pytest.importorskip("torch", reason="reads checkpoints")
pytest.importorskip("onnx", reason="changes ONNX files")

from tests.robustness import mutations
from tests.robustness.reader import (
    ACCEPTED,
    HALF,
    NOISE,
    REFUSED,
    TRACEBACK,
    WRONG,
    Case,
    Finding,
    Reader,
    Seed,
    chosen,
    outcome,
)
from tests.robustness.readers import READERS, seeds_of
from tests.robustness.run import ROOT, run


def test_damaged_inputs_for_half_a_minute() -> None:
    """Every reader, with mutations that differ from run to run. A failure says how to repeat it."""
    seed = random.SystemRandom().randrange(10**9)
    said: list[str] = []
    table = run(list(READERS), seed, seconds=30, least=8, report=said.append)
    assert not table.faults, "\n".join([f"--seed {seed}", table.markdown(), *said])
    assert all(counts.total() >= 8 for counts in table.counts.values())


def test_every_seed_is_accepted(tmp_path: Path) -> None:
    """What the code makes is whole; inputs that are kept beside the checkout are broken."""
    made = {name: len(reader.seeds(tmp_path)) for name, reader in READERS.items()}
    for name in (
        "pictures",
        "videos",
        "checkpoints",
        "recipes",
        "points",
        "calibrations",
        "manifests",
        "reports",
    ):
        table = run([name], 0, seconds=0, least=made[name], most=made[name], report=pytest.fail)
        assert table.counts[name][ACCEPTED] == made[name]


@pytest.mark.parametrize("name", READERS)
def test_a_seed_repeats_its_cases(name: str, tmp_path: Path) -> None:
    reader = READERS[name]
    seeds = seeds_of(reader, tmp_path)
    cases = [[chosen(seeds, reader, seed, 1000 + n)[1] for n in range(5)] for seed in (1, 1, 2)]
    assert cases[0] == cases[1]
    assert cases[0] != cases[2]


@pytest.mark.parametrize(
    "mutate", [f for name, f in vars(mutations).items() if name.startswith("of_")], ids=lambda f: f.__name__
)
def test_mutations_take_what_mutations_made(mutate: mutations.Mutate) -> None:
    rng = random.Random(0)
    for data in (b"", b"a", b"[1, 2]", b"\x89PNG\r\n\x1a\n" + bytes(40), b'{"a": {"b": [1.5, "x", null]}}'):
        for _ in range(200):
            data = mutate(data, rng)[:2000]


def _outcome(tmp_path: Path, read: Callable[[Case], None], said: str = "") -> tuple[str, str]:
    case = Case(tmp_path, "x", b"", random.Random(0), lambda: (said, ""))
    return outcome(Reader("test", lambda folder: [Seed("x", b"")], mutations.of_bytes, read), case)


def _refuse(case: Case) -> None:
    raise InputError("no")


def _refuse_half(case: Case) -> None:
    case.out("out.png").write_bytes(b"half")
    raise InputError("no")


def _leave(case: Case) -> None:
    (case.folder / ".x.1.partial.png").touch()


def _raise(case: Case) -> None:
    raise ZeroDivisionError("by zero")


def _differ(case: Case) -> None:
    case.require(1 == 2, "differs")


@pytest.mark.parametrize(
    ("read", "kind"),
    [
        (lambda case: None, ACCEPTED),
        (_refuse, REFUSED),
        (_refuse_half, HALF),
        (_leave, HALF),
        (_raise, TRACEBACK),
        (_differ, WRONG),
    ],
)
def test_the_harness_sees_each_kind(tmp_path: Path, read: Callable[[Case], None], kind: str) -> None:
    assert _outcome(tmp_path, read)[0] == kind


def test_the_harness_sees_noise(tmp_path: Path) -> None:
    assert _outcome(tmp_path, lambda case: None, "libpng error: x\n") == (NOISE, "libpng error: x")


def test_a_command_says_one_line(tmp_path: Path) -> None:
    texts = iter([("", ""), ("", "libpng error: x\nerror: no\n")])
    case = Case(tmp_path, "x", b"", random.Random(0), lambda: next(texts))
    with pytest.raises(Finding, match="before the error: libpng error") as caught:
        case.command("fuse")
    assert caught.value.kind == NOISE


_ENDS = {
    "hang": "while True: pass",
    "crash": "os.kill(os.getpid(), signal.SIGSEGV)",
    "traceback": "bytearray(1 << 40)  # beyond the limit of memory",
}


@pytest.mark.parametrize("kind", _ENDS)
def test_a_case_that_hangs_or_ends_the_worker_is_seen_and_kept(tmp_path: Path, kind: str) -> None:
    """Of three cases the second; the third is tried by another worker."""
    program = f"""
import json, os, signal, sys
sys.path.insert(0, {str(ROOT)!r})
from tests.robustness import readers, worker
from tests.robustness.mutations import of_bytes
from tests.robustness.reader import Reader, Seed

def read(case):
    if case.name == "1":
        {_ENDS[kind]}

def seeds(folder):
    return [Seed(str(n), b"data") for n in range(3)]

readers.READERS["bad"] = Reader("bad", seeds, of_bytes, read, seconds=0.5)
worker.main(json.loads(sys.argv[1]))
"""
    (tmp_path / "program.py").write_text(program)
    worker = (sys.executable, str(tmp_path / "program.py"))
    said: list[str] = []
    table = run(
        ["bad"], 1, seconds=0, least=3, most=3, keep=tmp_path / "kept", report=said.append, worker=worker
    )
    assert table.counts["bad"] == {ACCEPTED: 2, kind: 1}
    assert f"{kind} in bad" in said[0]
    assert "--reader bad --case 1 --seed 1" in said[0]
    assert (tmp_path / "kept" / "bad-1" / "1").read_bytes() == b"data"
