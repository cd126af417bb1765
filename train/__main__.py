"""`ufuser train`: train a network, or import released weights."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from ufuser.runtime.command import Parser, file_path, run_command
from ufuser.runtime.errors import InputError
from ufuser.runtime.files import make_folder, require_writable
from ufuser.runtime.outputs import check_outputs, folders_of

from .objectives import OBJECTIVES


def get_parser(prog: str = "python -m ufuser.train") -> Parser:
    """The command line, apart from its execution. Does not import PyTorch."""
    parser = Parser(prog=prog, description="Train fusion networks, import released ones.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    imported = commands.add_parser("import", help="turn a released .pth into a checkpoint of this toolkit")
    imported.add_argument("release", type=file_path, metavar="RELEASE.pth")
    imported.add_argument("--out", type=file_path, required=True, metavar="X.safetensors")
    imported.add_argument("--model", help="network of the weights (default: recognised by their names)")
    imported.set_defaults(task=run_import)

    averaged = commands.add_parser("average", help="average two checkpoints of one network, weight by weight")
    averaged.add_argument("first", type=file_path, metavar="A.safetensors")
    averaged.add_argument("second", type=file_path, metavar="B.safetensors")
    averaged.add_argument("--share", type=float, default=0.5, help="of the second (default: 0.5)")
    averaged.add_argument("--out", type=file_path, required=True, metavar="X.safetensors")
    averaged.set_defaults(task=run_average)

    for name, entry in OBJECTIVES.items():
        command = commands.add_parser(name, help=entry.help)
        _add_training_arguments(command)
        entry.add_arguments(command)
        command.set_defaults(task=run_training)
    for command in commands.choices.values():
        command.set_defaults(run=run, extra_of_command="train")
    return parser


def _add_training_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--recipe",
        type=file_path,
        required=True,
        metavar="NAME|FILE",
        help="every number of the run: a shipped recipe, such as ufuser_direct, or a TOML file",
    )
    parser.add_argument(
        "--data", type=file_path, required=True, help="folder with ir/ and vi/, equally named images"
    )
    parser.add_argument("--out", type=file_path, required=True, help="folder for checkpoints, log and panels")
    parser.add_argument(
        "--validation",
        metavar="FILE|SHARE",
        help="pairs kept out of training: a file with one name a line, or a share such as 0.1, drawn by the recipe's "
        "seed (default: the recipe's list; without one, a tenth)",
    )
    parser.add_argument(
        "--steps",
        type=int,
        metavar="N",
        help="train for N steps, or up to N with --resume (default: the recipe's)",
    )
    parser.add_argument("--init", type=file_path, metavar="CHECKPOINT", help="initial weights")
    parser.add_argument(
        "--resume", action="store_true", help="continue the run in --out; start it if there is none"
    )
    parser.add_argument(
        "--save-minutes",
        type=float,
        default=10.0,
        metavar="N",
        help="also save the state for --resume every N minutes (default: 10)",
    )
    parser.add_argument("--threads", type=int, help="CPU threads (default: PyTorch's choice)")
    parser.add_argument("--device", default="cpu", help="torch device: cpu, cuda, cuda:1 (default: cpu)")


def run_import(args: argparse.Namespace) -> None:
    """Convert a published checkpoint."""
    from .checkpoint import digest, import_release, save_checkpoint
    from .models import all_options

    if args.out.suffix != ".safetensors":
        raise InputError(f"out={args.out}: expected a name ending in .safetensors", "out")
    check_outputs({"out": args.out}, (args.release,))
    require_writable(args.out)
    state, name = import_release(args.release, args.model)
    notes = {"imported_from": args.release.name, "sha256": digest(args.release)}
    save_checkpoint(args.out, state, name, "", notes, all_options(name, {}))
    print(f"{args.out}: {name}, {sum(v.numel() for v in state.values()):,} parameters")


def run_average(args: argparse.Namespace) -> None:
    """Average two checkpoints."""
    from .average import average

    check_outputs({"out": args.out}, (args.first, args.second))
    count = average(args.first, args.second, args.share, args.out)
    print(f"{args.out}: {count:,} parameters, {args.share:g} of {args.second.name}")


def run_training(args: argparse.Namespace) -> None:
    """Train by the objective that the subcommand names."""
    from .setup import prepared
    from .trainer import FILES, Run, Trainer

    if not args.save_minutes > 0:
        raise InputError(f"save_minutes={args.save_minutes:g}: expected more than 0", "save_minutes")
    importlib.import_module("matplotlib")  # the first validation draws with it
    # The arguments of all objectives; not each has all of them.
    given = vars(args)
    files = [
        given.get(name) for name in ("recipe", "validation", "init", "sensing_ir", "sensing_vi", "teacher")
    ]
    pictures = [*folders_of(args.data), *given.get("pseudo", ())]
    written = [args.out, *(args.out / name for name in FILES if not name.endswith(".png"))]
    check_outputs({"out": written}, (*files, *pictures))
    objective = importlib.import_module(f".objectives.{args.command}", __package__)
    with prepared(args, args.command) as setup:
        recipe = setup.recipe
        task = objective.prepare(setup, recipe.objective, args)
        setup.print(
            f"{recipe.name}: {recipe.model}, {len(task.training)} examples to train on, "
            f"{len(task.validation)} to validate"
        )
        run = Run(recipe, task, args.out, setup.device, args.resume, setup.processes, args.save_minutes)
        trainer = Trainer(run, setup.model)
        if setup.split.note:
            setup.print(setup.split.note)
            if setup.processes.is_first:
                make_folder(args.out)
                setup.split.write(args.out)
        best = trainer.run()
        setup.print(f"best validation loss {best:.5f}: {args.out / 'best.safetensors'}")


def run(args: argparse.Namespace) -> int:
    """Run the command; the exit code. Raises InputError."""
    try:
        args.task(args)
    except KeyboardInterrupt:
        if (args.out / "last.pt").is_file():
            raise KeyboardInterrupt(f"--resume continues from the last checkpoint in {args.out}") from None
        raise
    return 0


def main(argv: Sequence[str] | None = None, prog: str = "python -m ufuser.train") -> int:
    """Entry point; returns the exit code."""
    return run_command(get_parser(prog), argv)


if __name__ == "__main__":
    sys.exit(main())
