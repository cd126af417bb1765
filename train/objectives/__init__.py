"""The objectives, by the name of their subcommand and of the section that makes a recipe one of theirs.

An objective NAME is the module `objectives.NAME` with a function `prepare(setup, section, args)` that returns a
`Task`. The module is imported only to train, because it needs PyTorch; the command line and recipes do not.
"""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Callable
from dataclasses import dataclass

from ufuser.runtime.command import file_path

from ..sections import (
    DaeFuseRecipe,
    DirectRecipe,
    DistillRecipe,
    EmmaRecipe,
    FNetRecipe,
    ObjectiveRecipe,
    SensingRecipe,
)

DIRECT = "direct"
"""The objective of a recipe without a section of any other."""


def _no_arguments(parser: ArgumentParser) -> None:
    """The common arguments suffice."""


def _add_sensing_modules(parser: ArgumentParser) -> None:
    parser.add_argument("--sensing-ir", type=file_path, metavar="A_i.safetensors", help="the module A_i")
    parser.add_argument("--sensing-vi", type=file_path, metavar="A_v.safetensors", help="the module A_v")


def _add_pseudo(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--pseudo",
        nargs="+",
        default=["laplacian", "wavelet", "guided", "mean"],
        metavar="FOLDER|FUSER",
        help="folders of fused images named like the pairs, or built-in fusers, which write to --out/pseudo "
        "(default: laplacian wavelet guided mean)",
    )


def _add_teacher(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--teacher", default="ufuser", help="shipped weights or a checkpoint (default: %(default)s)"
    )
    parser.add_argument(
        "--teacher-pictures",
        "--lessons",  # the former name
        type=file_path,
        metavar="DIR",
        help="folder for the teacher's pictures; runs that differ only in the student can share it "
        "(default: --out/teacher)",
    )
    _add_sensing_modules(parser)


@dataclass(frozen=True)
class Entry:
    """An objective as recipes and the command line know it."""

    recipe: type[ObjectiveRecipe]
    help: str
    add_arguments: Callable[[ArgumentParser], None] = _no_arguments


OBJECTIVES: dict[str, Entry] = {
    DIRECT: Entry(
        DirectRecipe, "train against both sources directly: intensity, gradient and structure terms"
    ),
    "sensing": Entry(SensingRecipe, "train a pseudo-sensing module A_i or A_v (EMMA, stage II)", _add_pseudo),
    "emma": Entry(
        EmmaRecipe, "train through A_i and A_v, with equivariance (EMMA, stage III)", _add_sensing_modules
    ),
    "distill": Entry(DistillRecipe, "train a small network on the pictures of a large one", _add_teacher),
    "daefuse": Entry(
        DaeFuseRecipe, "train DAE-Fuse's autoencoder (phase 1) or fusion (phase 2) against discriminators"
    ),
    "fnet": Entry(FNetRecipe, "train FNet, with its inverse (stage 1) or alone (stage 2)"),
}
