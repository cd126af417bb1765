"""MkDocs hook: draw a Mermaid graph as an SVG in the page, without a script from another host.

It knows what the architecture page needs: nodes `name["text<br>more"]` and edges `a --> b`. The nodes stand in one
column in the order of the source, so that an arrow down means "may import"; an edge is an arc at their right.
"""

from __future__ import annotations

import html
import re

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page

BLOCK = re.compile(r"^```mermaid\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NODE = re.compile(r'(\w+)\["(.*)"\]')
EDGE = re.compile(r"(\w+) --> (\w+)")
WIDTH, HEIGHT, GAP = 300, 56, 24


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Replace each Mermaid block by its drawing."""
    return BLOCK.sub(lambda block: drawn(*graph(block[1])), markdown)


def graph(source: str) -> tuple[dict[str, str], list[tuple[str, str]]]:
    """The texts of the nodes by name, and the edges, of a Mermaid flow chart."""
    nodes: dict[str, str] = {}
    edges = []
    for line in (line.strip() for line in source.splitlines()):
        if node := NODE.fullmatch(line):
            nodes[node[1]] = node[2]
        elif edge := EDGE.fullmatch(line):
            edges.append((edge[1], edge[2]))
        elif line and not line.startswith(("flowchart", "%%")):
            raise PluginError(f"a diagram has a line that is neither a node nor an edge: {line}")
    unknown = {name for edge in edges for name in edge} - set(nodes)
    if unknown:
        raise PluginError(f"a diagram has edges to nodes that it does not define: {sorted(unknown)}")
    return nodes, edges


def drawn(nodes: dict[str, str], edges: list[tuple[str, str]]) -> str:
    """The graph as an SVG element."""
    row = {name: index for index, name in enumerate(nodes)}
    upward = [edge for edge in edges if row[edge[0]] >= row[edge[1]]]
    if upward:
        raise PluginError(f"an edge of a diagram points up; reorder its nodes: {upward}")
    top = {name: 2 + index * (HEIGHT + GAP) for name, index in row.items()}
    parts = []
    for source, target in sorted(edges, key=lambda edge: row[edge[1]] - row[edge[0]]):
        span = row[target] - row[source]
        out = sorted((b for a, b in edges if a == source), key=row.get)  # type: ignore[arg-type]
        into = sorted((a for a, b in edges if b == target), key=row.get, reverse=True)  # type: ignore[arg-type]
        half = HEIGHT / 2  # arrows arrive at the upper half of a node and leave from the lower one
        y1 = top[source] + half + half * (len(out) - out.index(target)) / (len(out) + 1)
        y2 = top[target] + half * (into.index(source) + 1) / (len(into) + 1)
        x, reach = WIDTH + 2, 26 + 40 * span
        parts.append(
            f'<path class="edge" d="M{x} {y1:.1f} C{x + reach} {y1:.1f} {x + reach} {y2:.1f} {x + 9} {y2:.1f}"/>'
        )
        parts.append(f'<path class="tip" d="M{x + 1} {y2:.1f} l9 -4 v8 z"/>')
    for name, text in nodes.items():
        parts.append(f'<rect x="2" y="{top[name]}" width="{WIDTH}" height="{HEIGHT}" rx="4"/>')
        title, *more = text.split("<br>")
        parts.append(f'<text class="name" x="16" y="{top[name] + 22}">{html.escape(title)}</text>')
        parts += [f'<text x="16" y="{top[name] + 40}">{html.escape(line)}</text>' for line in more]
    reach = max((row[b] - row[a] for a, b in edges), default=0)
    width = WIDTH + 20 + int((26 + 40 * reach) * 0.76)
    height = len(nodes) * (HEIGHT + GAP) - GAP + 4
    label = html.escape("; ".join(f"{a} imports {b}" for a, b in edges))
    return f'<svg class="rooms" viewBox="0 0 {width} {height}" role="img" aria-label="{label}">{"".join(parts)}</svg>'
