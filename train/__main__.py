"""`python -m train import|direct`: bring in released weights, or train."""

from __future__ import annotations

import argparse
import hashlib
import sys
from pathlib import Path

from .errors import InputError


def get_parser() -> argparse.ArgumentParser:
    """The command line, apart from its execution."""
    parser = argparse.ArgumentParser(
        prog="python -m train", description="Train fusion networks, import released ones."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    imported = commands.add_parser("import", help="turn a released .pth into a checkpoint of this toolkit")
    imported.add_argument("release", type=Path, metavar="RELEASE.pth")
    imported.add_argument("--out", type=Path, required=True, metavar="X.safetensors")
    imported.add_argument(
        "--model", default="ufuser", help="which network the weights are for (default: ufuser)"
    )
    imported.set_defaults(run=run_import)

    direct = commands.add_parser(
        "direct", help="train against both sources directly: intensity, gradient and structure terms"
    )
    direct.add_argument("--recipe", type=Path, required=True, help="TOML with every number of the run")
    direct.add_argument(
        "--data", type=Path, required=True, help="folder with ir/ and vi/, equally named images"
    )
    direct.add_argument("--out", type=Path, required=True, help="folder for checkpoints, log and panels")
    direct.add_argument("--resume", action="store_true", help="go on from the last checkpoint in --out")
    direct.add_argument("--threads", type=int, help="CPU threads (default: PyTorch's choice)")
    direct.add_argument("--device", default="cpu", help="torch device: cpu, cuda, cuda:1 (default: cpu)")
    direct.set_defaults(run=run_direct)
    return parser


def run_import(args: argparse.Namespace) -> None:
    """Read, check, write."""
    from .checkpoint import import_release, save_checkpoint

    if args.out.suffix != ".safetensors":
        raise InputError(f"--out {args.out}: expected a name ending in .safetensors")
    state = import_release(args.release, args.model)
    digest = hashlib.sha256(args.release.read_bytes()).hexdigest()
    notes = {"imported_from": args.release.name, "sha256": digest}
    save_checkpoint(args.out, state, args.model, "", notes)
    print(f"{args.out}: {args.model}, {sum(v.numel() for v in state.values()):,} parameters")


def run_direct(args: argparse.Namespace) -> None:
    """Train by `DirectLoss`."""
    import torch

    from .checkpoint import first_line
    from .data import find_pairs, split_pairs
    from .losses import DirectLoss
    from .models import create
    from .recipe import load_recipe
    from .trainer import Run, Trainer

    recipe = load_recipe(args.recipe)
    torch.manual_seed(recipe.seed)
    model = create(recipe.model)
    if args.threads is not None:
        if args.threads < 1:
            raise InputError(f"--threads {args.threads}: expected at least 1")
        torch.set_num_threads(args.threads)
    try:
        device = torch.device(args.device)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as e:
        raise InputError(f"--device {args.device} is not usable: {first_line(e)}") from None
    training, validation = split_pairs(find_pairs(args.data), args.recipe.parent / recipe.data.validation)
    print(
        f"{recipe.name}: {recipe.model}, {len(training)} pairs to train on, {len(validation)} to validate",
        flush=True,
    )
    run = Run(recipe, training, validation, args.out, device, args.resume)
    best = Trainer(run, model, DirectLoss(recipe.loss)).run()
    print(f"best validation loss {best:.5f}: {args.out / 'best.safetensors'}")


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    args = get_parser().parse_args(argv)
    try:
        args.run(args)
    except InputError as e:
        print(f"error: {e}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        resumable = args.command == "direct" and (args.out / "last.pt").is_file()
        hint = f": --resume goes on from the last checkpoint in {args.out}" if resumable else ""
        print(f"interrupted{hint}", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
