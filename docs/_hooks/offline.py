"""MkDocs hook: refuse a site that loads anything from another host."""

from __future__ import annotations

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError

HTML = re.compile(
    r"<(?:script|img|iframe|source|video|audio)\b[^>]*?\bsrc\s*=\s*[\"']?((?:https?:)?//[^\"'\s>]+)"
    r"|<link\b(?![^>]*\brel=[\"']?(?:canonical|next|prev)\b)[^>]*?\bhref\s*=\s*[\"']?((?:https?:)?//[^\"'\s>]+)",
    re.IGNORECASE,
)
CSS = re.compile(r"(?:url\(\s*[\"']?|@import\s+[\"'])((?:https?:)?//[^\"')\s]+)", re.IGNORECASE)
MERMAID = re.compile(r"<(?:pre|div)[^>]*\bclass=[\"']?[^\"'>]*\bmermaid\b")


def loaded_from_elsewhere(site: Path) -> list[str]:
    """Each thing that a page or style sheet of the site loads from another host, as "file: address".

    The theme's script would load Mermaid from such a host for a page that has an element of class `mermaid`.
    """
    found = []
    for path in sorted(site.rglob("*")):
        if path.suffix not in {".html", ".css"}:
            continue
        text = path.read_text(encoding="utf-8")
        addresses = [a for groups in HTML.findall(text) for a in groups if a] + CSS.findall(text)
        if MERMAID.search(text):
            addresses.append("an element of class mermaid")
        found += [f"{path.relative_to(site)}: {address}" for address in addresses]
    return found


def on_post_build(config: MkDocsConfig) -> None:
    """Check the built site."""
    found = loaded_from_elsewhere(Path(config.site_dir))
    if found:
        raise PluginError("the site must not load anything from other hosts:\n" + "\n".join(found))
