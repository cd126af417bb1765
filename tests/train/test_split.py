"""Which pairs are kept for validation: by a list, by a share, and on pairs of one's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ufuser.runtime.errors import InputError
from ufuser.runtime.images import read_image, write_image
from ufuser.runtime.thermal.still import tone_mapped
from ufuser.train.__main__ import main
from ufuser.train.data import Pair
from ufuser.train.recipe import RECIPES
from ufuser.train.split import by_list, split_pairs

SHIPPED = RECIPES / "roadscene_validation.txt"


def pairs_of(*names: str) -> list[Pair]:
    return [Pair(name, Path(), Path()) for name in names]


def test_the_listed_pairs_are_kept_out_of_training(tmp_path: Path) -> None:
    listed = tmp_path / "v.txt"
    listed.write_text("b b\r\n\n  c \n", encoding="utf-8")
    split = by_list(pairs_of("a", "b b", "c"), listed)
    assert [p.name for p in split.training] == ["a"]
    assert [p.name for p in split.validation] == ["b b", "c"]
    assert not split.note


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"v\.txt names 0 of the 2 pairs"),
        (b"a\nb\n", r"v\.txt names 2 of the 2 pairs"),
        (b"a\nbb\n", r"v\.txt names pairs that are not in the data: bb$"),
        (b"\xff\xfe", r"v\.txt is not text"),
        (None, r"cannot read .*v\.txt"),
    ],
)
def test_a_wrong_list_is_named(tmp_path: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / "v.txt").write_bytes(content)
    for wanted, listed in ((str(tmp_path / "v.txt"), None), (None, tmp_path / "v.txt")):
        with pytest.raises(InputError, match=message):
            split_pairs(pairs_of("a", "b"), wanted, listed, 1)


@pytest.mark.parametrize(
    ("wanted", "listed", "count", "why"),
    [
        (None, None, 2, "no validation list"),
        (None, SHIPPED, 2, "none of the pairs of roadscene_validation.txt is in the data"),
        ("0.25", SHIPPED, 5, "validation=0.25"),
        ("0.001", None, 1, "validation=0.001"),
        ("0.999", None, 19, "validation=0.999"),
    ],
)
def test_a_split_is_drawn_by_the_seed(wanted: str | None, listed: Path | None, count: int, why: str) -> None:
    pairs = pairs_of(*(f"mine{k}" for k in range(20)))
    split, again, other = (split_pairs(pairs, wanted, listed, seed) for seed in (1, 1, 2))
    assert len(split.validation) == count
    assert {p.name for p in split.training} | {p.name for p in split.validation} == {p.name for p in pairs}
    assert len(split.training) == 20 - count
    assert split.note.startswith(f"{why}: {count} of 20 pairs are drawn for validation (seed 1)")
    assert split == again
    assert split.validation != other.validation


def test_the_shipped_list_is_used_as_far_as_its_pairs_are_there() -> None:
    known = SHIPPED.read_text(encoding="utf-8").split()
    assert [p.name for p in split_pairs(pairs_of("x", *known), None, SHIPPED, 1).training] == ["x"]
    partly = split_pairs(pairs_of("x", *known[:3]), None, SHIPPED, 1)
    assert {p.name for p in partly.validation} == set(known[:3])
    assert partly.note.startswith(f"3 of the {len(known)} pairs of roadscene_validation.txt are in the data")
    with pytest.raises(InputError, match="expected at least one on each side"):
        split_pairs(pairs_of(*known[:3]), None, SHIPPED, 1)
    with pytest.raises(InputError, match="names pairs that are not in the data"):  # given by the user
        split_pairs(pairs_of("x", "y"), str(SHIPPED), SHIPPED, 1)


def test_one_pair_cannot_be_split() -> None:
    with pytest.raises(InputError, match="only one pair: expected at least two"):
        split_pairs(pairs_of("a"), None, None, 1)


def test_a_shipped_recipe_by_name_trains_on_ones_own_pairs(
    tmp_path: Path, write_pairs: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """The command of the README."""
    data, out = write_pairs(tmp_path / "data", dict.fromkeys("abc", (32, 40))), tmp_path / "out"
    words = ["direct", "--recipe", "ufuser_direct", "--data", str(data), "--threads", "1", "--steps", "1"]
    assert main([*words, "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "roadscene_validation.txt is in the data: 1 of 3 pairs are drawn for validation" in said
    assert "ufuser-direct: ufuser, 2 examples to train on, 1 to validate" in said
    assert (out / "validation.txt").read_text() in {"a\n", "b\n", "c\n"}
    # The written list gives the same split.
    again = [*words, "--out", str(tmp_path / "again"), "--validation", str(out / "validation.txt")]
    assert main(again) == 0
    assert not (tmp_path / "again" / "validation.txt").exists()


def test_raw_counts_are_tone_mapped(
    tmp_path: Path, write_pairs: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = write_pairs(tmp_path / "data", dict.fromkeys("abc", (32, 40))), tmp_path / "out"
    counts = np.random.default_rng(0).integers(7000, 9000, (32, 40), np.uint16)
    write_image(data / "ir" / "b.png", counts)
    words = ["direct", "--recipe", "ufuser_direct", "--data", str(data), "--threads", "1", "--steps", "1"]
    assert main([*words, "--out", str(out)]) == 0
    assert f"1 infrared pictures hold raw counts: tone mapped to 8 bits in {out / 'infrared'}" in (
        capsys.readouterr().out
    )
    assert [p.name for p in (out / "infrared").iterdir()] == ["b.png"]
    np.testing.assert_array_equal(read_image(out / "infrared" / "b.png"), tone_mapped(counts))
