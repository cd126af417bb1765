"""`ufuser build` or `python export/to_tensorrt.py`: a TensorRT engine for this machine's GPU, with a manifest.

`--dry-run` and `--script` need neither GPU nor TensorRT.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace

from msgspec import to_builtins

from ufuser.export.tensorrt_build import adopt, build, find_device, up_to_date
from ufuser.export.tensorrt_plan import BuildFlags, Plan, cached_path, describe
from ufuser.runtime.command import Parser, file_path, run_command
from ufuser.runtime.console import print_json
from ufuser.runtime.engines.manifest import DeviceFacts, Manifest, manifest_path
from ufuser.runtime.engines.profiles import Extent, Profile
from ufuser.runtime.errors import InputError
from ufuser.runtime.files import write_bytes
from ufuser.runtime.outputs import check_outputs
from ufuser.runtime.progress import timed_printer

_DEFAULT = Profile(Extent(1, 256, 320), Extent(1, 480, 640), Extent(1, 1080, 1920))


def get_parser(prog: str = "ufuser build") -> Parser:
    """The command line, apart from its execution."""
    defaults = BuildFlags()
    parser = Parser(
        prog=prog,
        description="Build a TensorRT engine from an exported ONNX file, for the GPU of this machine.",
        epilog="Repeat --min, --opt, --max for several profiles: narrow ones run faster than a wide one.",
    )
    parser.add_argument("--onnx", type=file_path, required=True, metavar="FILE.onnx")
    for name, means in (("min", "smallest"), ("opt", "optimized"), ("max", "largest")):
        parser.add_argument(
            f"--{name}",
            action="append",
            metavar="BxHxW",
            help=f"{means} batch x height x width of a profile (default: {getattr(_DEFAULT, _FIELDS[name])})",
        )
    parser.add_argument(
        "--out",
        type=file_path,
        metavar="FILE.engine",
        help="default: in the user's cache folder, where the runtime looks",
    )
    parser.add_argument(
        "--workspace",
        type=int,
        default=defaults.workspace_mib,
        metavar="MIB",
        help="scratch memory (default: %(default)s)",
    )
    parser.add_argument(
        "--optimization-level",
        type=int,
        default=defaults.optimization_level,
        metavar="0-5",
        help="default: %(default)s",
    )
    parser.add_argument("--tf32", action="store_true", help="round float32 products to TF32 (default: exact)")
    parser.add_argument(
        "--version-compatible", action="store_true", help="run in later TensorRT releases too"
    )
    parser.add_argument("--hardware-compatible", action="store_true", help="run on any GPU from Ampere on")
    parser.add_argument("--refit", action="store_true", help="keep the weights exchangeable")
    parser.add_argument(
        "--force", action="store_true", help="build even if the engine there has the same key"
    )
    action = parser.add_mutually_exclusive_group()
    action.add_argument(
        "--dry-run", action="store_true", help="print plan, key and trtexec line; build nothing"
    )
    action.add_argument(
        "--script", type=file_path, metavar="FILE.sh", help="write the build as a script for a Jetson"
    )
    action.add_argument(
        "--adopt", action="store_true", help="write the manifest of the engine at --out, built by trtexec"
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.set_defaults(run=run)
    return parser


_FIELDS = {"min": "low", "opt": "best", "max": "high"}


def profiles_of(args: argparse.Namespace) -> tuple[Profile, ...]:
    """The profiles of the command line. Raises InputError."""
    given = {name: getattr(args, name) or [] for name in _FIELDS}
    counts = {len(extents) for extents in given.values()}
    if len(counts) > 1:
        counted = ", ".join(f"{len(extents)} --{name}" for name, extents in given.items())
        raise InputError(f"{counted}: expected the same number of each, one per profile")
    if counts == {0}:
        return (_DEFAULT,)
    extents = [[Extent.parse(text, name) for text in texts] for name, texts in given.items()]
    return tuple(Profile(*trio) for trio in zip(*extents, strict=True))


def flags_of(args: argparse.Namespace) -> BuildFlags:
    """The build options of the command line."""
    return BuildFlags(
        args.workspace,
        args.optimization_level,
        args.tf32,
        args.version_compatible,
        args.hardware_compatible,
        args.refit,
    )


def run(args: argparse.Namespace) -> int:
    """Carry out the command line. Raises InputError."""
    from ufuser.export.tensorrt_checks import make_plan  # with onnx

    report = timed_printer()
    manifest = None if args.out is None else manifest_path(args.out)
    check_outputs({"out": (args.out, manifest), "script": args.script}, (args.onnx,))
    flags = flags_of(args)
    plan = make_plan(args.onnx, profiles_of(args), flags, args.out)
    if args.script:
        write_bytes(args.script, plan.script().encode(), executable=True)
        print(f"{args.script}: run it on the device, with {plan.onnx} in place")
        return 0
    if args.dry_run:
        _print_plan(plan, _device_if_any(), args.json)
        return 0
    device, here = find_device()
    if args.out is None:
        plan = replace(plan, out=cached_path(plan.onnx, plan.key(here)))
    for remark in plan.remarks:
        report(remark)
    if args.adopt:
        _print_manifest(plan, adopt(plan, device, here), args.json)
    elif up_to_date(plan, here) and not args.force:
        report(f"{plan.out} has this key already: nothing to build (--force builds it again)")
        _print_manifest(plan, Manifest.read(plan.out), args.json)
    else:
        _print_manifest(plan, build(plan, device, here, report), args.json)
    return 0


def _device_if_any() -> DeviceFacts | None:
    try:
        return find_device()[1]
    except InputError:
        return None


def _print_plan(plan: Plan, device: DeviceFacts | None, as_json: bool) -> None:
    if not as_json:
        print(describe(plan, device))
        return
    print_json(
        {
            "engine": str(plan.out),
            "onnx": str(plan.onnx),
            "onnx_sha256": plan.onnx_sha256,
            "precision": plan.precision,
            "profiles": [profile.in_words() for profile in plan.profiles],
            "flags": asdict(plan.flags),
            "device": to_builtins(device),
            "key": plan.key(device),
            "remarks": plan.remarks,
            "trtexec": plan.trtexec(),
        }
    )


def _print_manifest(plan: Plan, manifest: Manifest, as_json: bool) -> None:
    if as_json:
        print(manifest.as_json(), end="")
        return
    types = ", ".join(f"{count} layers with {kind}" for kind, count in manifest.layer_types.items())
    print(
        f"{plan.out}: {manifest.engine_bytes / 1e6:.1f} MB, {plan.precision}, {types}, "
        f"{len(manifest.profiles)} profile(s), for {manifest.device}, key {manifest.key[:16]}"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    return run_command(get_parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
