"""MkDocs hook: let mkdocstrings find the package `ufuser`, whose folders do not carry its name."""

from __future__ import annotations

import configparser
import shutil
import tempfile
from pathlib import Path

import mkdocs.plugins
from mkdocs.config.defaults import MkDocsConfig

ROOT = Path(__file__).resolve().parents[2]
_folders: list[str] = []


def link_package(root: Path, target: Path) -> None:
    """Make `target/ufuser` by links to the folders that setup.cfg maps to `ufuser` and its subpackages."""
    setup = configparser.ConfigParser()
    setup.read(root / "setup.cfg", encoding="utf-8")
    lines = setup["options"]["package_dir"].split("\n")
    folders = dict(line.replace(" ", "").split("=") for line in lines if "=" in line)
    package = target / "ufuser"
    package.mkdir()
    for item in (root / folders.pop("ufuser")).iterdir():
        (package / item.name).symlink_to(item)
    for name, folder in folders.items():
        (package / name.removeprefix("ufuser.")).symlink_to(root / folder)


@mkdocs.plugins.event_priority(100)  # before mkdocstrings reads its settings
def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Point mkdocstrings at a temporary folder of links."""
    folder = tempfile.mkdtemp(prefix="ufuser-docs-")
    _folders.append(folder)
    link_package(ROOT, Path(folder))
    config.plugins["mkdocstrings"].config["handlers"]["python"]["paths"] = [folder]
    return config


def on_post_build(config: MkDocsConfig) -> None:
    """Remove the links."""
    while _folders:
        shutil.rmtree(_folders.pop())
