"""`python -m ufuser.train import|direct|sensing|emma|daefuse`: bring in released weights, or train."""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ufuser.runtime.command import Parser, run_command
from ufuser.runtime.errors import InputError

if TYPE_CHECKING:  # PyTorch is slow to import: only where a command needs it
    import torch
    from torch import nn

    from .data import Example, Pair
    from .objective import Objective
    from .processes import Share
    from .recipe import Recipe


def get_parser(prog: str = "python -m ufuser.train") -> Parser:
    """The command line, apart from its execution."""
    parser = Parser(prog=prog, description="Train fusion networks, import released ones.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    imported = commands.add_parser("import", help="turn a released .pth into a checkpoint of this toolkit")
    imported.add_argument("release", type=Path, metavar="RELEASE.pth")
    imported.add_argument("--out", type=Path, required=True, metavar="X.safetensors")
    imported.add_argument(
        "--model", default="ufuser", help="which network the weights are for (default: ufuser)"
    )
    imported.set_defaults(run=run, task=run_import)

    averaged = commands.add_parser("average", help="average two checkpoints of one network, weight by weight")
    averaged.add_argument("first", type=Path, metavar="A.safetensors")
    averaged.add_argument("second", type=Path, metavar="B.safetensors")
    averaged.add_argument("--share", type=float, default=0.5, help="of the second (default: 0.5)")
    averaged.add_argument("--out", type=Path, required=True, metavar="X.safetensors")
    averaged.set_defaults(run=run, task=run_average)

    direct = commands.add_parser(
        "direct", help="train against both sources directly: intensity, gradient and structure terms"
    )
    direct.set_defaults(run=run, task=run_direct)

    sensing = commands.add_parser("sensing", help="train a pseudo-sensing module A_i or A_v (EMMA, stage II)")
    sensing.add_argument(
        "--pseudo",
        nargs="+",
        default=["laplacian", "wavelet", "guided", "mean"],
        metavar="FOLDER|FUSER",
        help="folders of fused images named like the pairs, or built-in fusers, which write to --out/pseudo "
        "(default: laplacian wavelet guided mean)",
    )
    sensing.set_defaults(run=run, task=run_sensing)

    emma = commands.add_parser("emma", help="train through A_i and A_v, with equivariance (EMMA, stage III)")
    emma.set_defaults(run=run, task=run_emma)

    distill = commands.add_parser("distill", help="train a small network on the pictures of a large one")
    distill.add_argument(
        "--teacher", default="ufuser", help="shipped weights or a checkpoint (default: %(default)s)"
    )
    distill.add_argument(
        "--lessons",
        type=Path,
        metavar="DIR",
        help="where the teacher's pictures are kept; runs that differ only in the student share them "
        "(default: --out/lessons)",
    )
    distill.set_defaults(run=run, task=run_distill)

    daefuse = commands.add_parser(
        "daefuse", help="train DAE-Fuse's autoencoder (phase 1) or fusion (phase 2) against discriminators"
    )
    daefuse.set_defaults(run=run, task=run_daefuse)

    fnet = commands.add_parser("fnet", help="train FNet, with its inverse (stage 1) or alone (stage 2)")
    fnet.set_defaults(run=run, task=run_fnet)

    for command in (emma, distill):
        command.add_argument("--sensing-ir", type=Path, metavar="A_i.safetensors")
        command.add_argument("--sensing-vi", type=Path, metavar="A_v.safetensors")
    for command in (direct, sensing, emma, distill, fnet, daefuse):
        _add_training_arguments(command)
    return parser


def _add_training_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--recipe", type=Path, required=True, help="TOML with every number of the run")
    parser.add_argument(
        "--data", type=Path, required=True, help="folder with ir/ and vi/, equally named images"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoints, log and panels")
    parser.add_argument("--init", type=Path, metavar="CHECKPOINT", help="weights to begin with")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint in --out")
    parser.add_argument("--threads", type=int, help="CPU threads (default: PyTorch's choice)")
    parser.add_argument("--device", default="cpu", help="torch device: cpu, cuda, cuda:1 (default: cpu)")


def run_import(args: argparse.Namespace) -> None:
    """Read, check, write."""
    from .checkpoint import import_release, save_checkpoint
    from .models import all_options

    if args.out.suffix != ".safetensors":
        raise InputError(f"--out {args.out}: expected a name ending in .safetensors")
    state = import_release(args.release, args.model)
    notes = {"imported_from": args.release.name, "sha256": _digest(args.release)}
    save_checkpoint(args.out, state, args.model, "", notes, all_options(args.model, {}))
    print(f"{args.out}: {args.model}, {sum(v.numel() for v in state.values()):,} parameters")


def run_average(args: argparse.Namespace) -> None:
    """Read both, write what lies between."""
    from .average import average

    count = average(args.first, args.second, args.share, args.out)
    print(f"{args.out}: {count:,} parameters, {args.share:g} of {args.second.name}")


def run_direct(args: argparse.Namespace) -> None:
    """Train by `DirectLoss`."""
    from .losses import DirectLoss
    from .objective import DirectObjective

    with _prepared(args, "") as setup:
        objective = DirectObjective(DirectLoss(setup.recipe.loss))
        _train(setup, objective, setup.training, setup.validation, {})


def run_sensing(args: argparse.Namespace) -> None:
    """Train a pseudo-sensing module on what fusers made of the pairs."""
    from .processes import first_alone
    from .sensing import SensingObjective, examples, examples_in_turn, find_fused

    with _prepared(args, "sensing") as setup:
        recipe = setup.recipe.sensing
        assert recipe is not None  # that is what _prepared checked
        with first_alone(setup.share):
            fused = find_fused(args.pseudo, [*setup.training, *setup.validation], args.out / "pseudo")
        setup.say(f"pseudo ground truth for '{recipe.target}': {', '.join(fused)}")
        training = examples(fused, setup.training, recipe.target)
        validation = examples_in_turn(fused, setup.validation, recipe.target)
        origin = {"target": recipe.target, "pseudo": list(fused)}
        _train(setup, SensingObjective(recipe), training, validation, origin)


def run_emma(args: argparse.Namespace) -> None:
    """Train by Eq. (4) of EMMA."""
    from .emma import EmmaObjective, load_sensing_pair

    with _prepared(args, "emma") as setup:
        sensing = load_sensing_pair(args.sensing_ir, args.sensing_vi)
        objective = EmmaObjective(setup.recipe, sensing, setup.device, setup.share)
        _train(setup, objective, setup.training, setup.validation, _sensing_digests(args))


def _sensing_digests(args: argparse.Namespace) -> dict[str, object]:
    given = {"sensing_ir": args.sensing_ir, "sensing_vi": args.sensing_vi}
    return {name: _digest(path) for name, path in given.items() if path is not None}


def run_distill(args: argparse.Namespace) -> None:
    """Have the teacher make its pictures, then train the student on them."""
    from .distill import DistillObjective, Lessons, find_teacher, learning_data
    from .emma import frozen, load_sensing_pair
    from .processes import first_alone

    with _prepared(args, "distill") as setup:
        recipe = setup.recipe.distill
        assert recipe is not None  # that is what _prepared checked
        modules = frozen(
            load_sensing_pair(args.sensing_ir, args.sensing_vi) or (), setup.recipe, setup.device
        )
        objective = DistillObjective(recipe, setup.recipe.loss, setup.share, modules)
        teacher, digest = find_teacher(args.teacher)
        folder = args.lessons or args.out / "lessons"
        lessons = Lessons(folder, setup.recipe, teacher, digest, setup.device)
        with first_alone(setup.share):
            training = lessons.write(setup.training, recipe.variants, setup.say)
            validation = lessons.write(setup.validation, 1, setup.say)
        online = replace(setup, recipe=replace(setup.recipe, data=learning_data(setup.recipe.data)))
        origin = {"teacher": digest} | _sensing_digests(args)
        _train(online, objective, training, validation, origin)


def run_daefuse(args: argparse.Namespace) -> None:
    """Train a phase of DAE-Fuse."""
    from .adversarial import objective_of

    with _prepared(args, "daefuse") as setup:
        recipe = setup.recipe.daefuse
        assert recipe is not None  # that is what _prepared checked
        objective = objective_of(recipe, setup.device, setup.share)
        _train(setup, objective, setup.training, setup.validation, {})


def run_fnet(args: argparse.Namespace) -> None:
    """Train a stage of FNet."""
    from .fnet import objective_of

    with _prepared(args, "fnet") as setup:
        recipe = setup.recipe.fnet
        assert recipe is not None  # that is what _prepared checked
        _train(setup, objective_of(recipe), setup.training, setup.validation, {})


@dataclass(frozen=True)
class _Setup:
    """What every training is made of."""

    args: argparse.Namespace
    recipe: Recipe
    model: nn.Module
    device: torch.device
    share: Share
    training: list[Pair]
    validation: list[Pair]
    origin: dict[str, object]  # digests of the pairs' names and of the weights to begin with

    def say(self, text: str) -> None:
        """Print, once where several processes train together."""
        if self.share.first:
            print(text, flush=True)


@contextmanager
def _prepared(args: argparse.Namespace, paradigm: str) -> Iterator[_Setup]:
    """Read and check what was given, and join the other processes, if any.

    `paradigm` is the section that the recipe must have, "" for none.
    """
    import torch

    from .checkpoint import load_weights, read_initial
    from .data import find_pairs, split_pairs
    from .models import create, kinds_for, shape_multiple
    from .models.fnet import FNet, FNetPair
    from .processes import joined
    from .recipe import load_recipe, paradigm_of
    from .trainer import check_out

    recipe = load_recipe(args.recipe)
    if paradigm_of(recipe) != paradigm:
        other = paradigm_of(recipe)
        raise InputError(
            f"{args.recipe} is for `python -m ufuser.train {other or 'direct'}`: expected one with"
            + (f" a section [{paradigm}]" if paradigm else f"out a section [{other}]")
        )
    torch.manual_seed(recipe.seed)
    model = create(recipe.model, recipe.network, kinds_for(paradigm))
    if recipe.data.crop % shape_multiple(model):
        raise InputError(
            f"{args.recipe} [data]: 'crop' must be a multiple of {shape_multiple(model)} for {recipe.model}, "
            f"got {recipe.data.crop}"
        )
    if isinstance(model, (FNet, FNetPair)):
        model.join_convolutions()  # the same answer sooner
    if args.threads is not None:
        if args.threads < 1:
            raise InputError(f"--threads {args.threads}: expected at least 1")
        torch.set_num_threads(args.threads)
    check_out(args.out, args.resume)
    training, validation = split_pairs(find_pairs(args.data), args.recipe.parent / recipe.data.validation)
    names = ["\n".join(pair.name for pair in side) for side in (training, validation)]
    origin: dict[str, object] = {"pairs": hashlib.sha256("\n\n".join(names).encode()).hexdigest()}
    validation = validation[: recipe.data.validate_on or None]
    if args.init is not None:
        load_weights(model, read_initial(args.init, recipe.model), str(args.init))
        origin["init"] = _digest(args.init)
    with joined(args.device) as (share, device):
        yield _Setup(args, recipe, model, device, share, training, validation, origin)


def _train(
    setup: _Setup,
    objective: Objective,
    training: Sequence[Example],
    validation: Sequence[Example],
    origin: Mapping[str, object],
) -> None:
    from .trainer import Run, Trainer

    recipe, args = setup.recipe, setup.args
    setup.say(
        f"{recipe.name}: {recipe.model}, {len(training)} examples to train on, {len(validation)} to validate"
    )
    origin = {**setup.origin, **origin}
    run = Run(recipe, training, validation, args.out, setup.device, args.resume, origin, setup.share)
    best = Trainer(run, setup.model, objective).run()
    setup.say(f"best validation loss {best:.5f}: {args.out / 'best.safetensors'}")


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def run(args: argparse.Namespace) -> int:
    """Carry out the command line; the exit code. Raises InputError."""
    try:
        args.task(args)
    except KeyboardInterrupt:
        if args.command != "import" and (args.out / "last.pt").is_file():
            raise KeyboardInterrupt(f"--resume goes on from the last checkpoint in {args.out}") from None
        raise
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    return run_command(get_parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
