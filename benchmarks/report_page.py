"""The report: sections of tables, plots and pictures, as one HTML file and as Markdown.

The HTML file is self-contained. The Markdown refers to the plots and pictures as files beside it.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2

from ufuser.benchmarks.report_panels import Panel, Picture
from ufuser.benchmarks.report_plots import Plot, plots
from ufuser.benchmarks.report_tables import (
    Table,
    common_setting,
    cost_tables,
    energy_table,
    latency_tables,
    quality_table,
    roofline_table,
)
from ufuser.benchmarks.results import Results
from ufuser.runtime.errors import InputError
from ufuser.runtime.files import make_folder, write_bytes

PAGE, TWIN, FIGURES = "report.html", "report.md", "figures"
_TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True, slots=True)
class Section:
    """One section of the page."""

    title: str
    lead: str
    tables: tuple[Table, ...] = ()
    plots: tuple[Plot, ...] = ()
    panels: tuple[Panel, ...] = ()

    @property
    def anchor(self) -> str:
        return self.title.lower().replace(" ", "-")


def sections(results: Results, panels: Sequence[Panel]) -> list[Section]:
    """Non-empty sections in the order of the page."""
    setting = common_setting(results.latency)
    drawn = plots(results, setting)

    def of(*prefixes: str) -> tuple[Plot, ...]:
        return tuple(plot for plot in drawn if plot.name.startswith(prefixes))

    roof, energy = roofline_table(results), energy_table(results)
    everything = [
        Section(
            "Latency",
            "Time per pair. Repetitions are interleaved, so that drift of the machine affects all contenders equally.",
            tuple(latency_tables(results)),
            of("pixels", "operators"),
        ),
        Section(
            "Roofline",
            "Measured peaks of the machine, and how close the networks come to them.",
            (roof,) if roof else (),
            of("roofline"),
        ),
        Section(
            "Quality",
            "Metrics of the fused pictures. Each can be gamed, as the simple methods show: read them together.",
            tuple(quality_table(table) for table in results.quality),
            of("quality"),
        ),
        Section(
            "Cost",
            "Counted costs of the networks, and the costs that the papers print.",
            tuple(cost_tables(results)),
        ),
        Section("Energy", "Energy above idle.", (energy,) if energy else ()),
        Section("Pictures", "Sources and fused pictures.", panels=tuple(panels)),
    ]
    return [s for s in everything if s.tables or s.plots or s.panels]


def write_report(out: Path, results: Results, panels: Sequence[Panel]) -> None:
    """Write the HTML page, the Markdown and its figures into a folder, each file atomically.

    Raises:
        InputError: a file cannot be written, or the results are empty.
    """
    shown = sections(results, panels)
    if not shown:
        raise InputError("the results are empty: expected latency, cost, peak, quality or energy")
    files = {f"{FIGURES}/{plot.name}.svg": plot.svg for section in shown for plot in section.plots}
    names = {}
    for section in shown:
        for i, panel in enumerate(section.panels, start=1):
            for j, picture in enumerate(panel.pictures, start=1):
                names[id(picture)] = f"{FIGURES}/panel_{i}_{j}.jpg"
                files[names[id(picture)]] = picture.jpeg
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=lambda name: name == "report.html",
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["data_uri"] = _data_uri
    environment.filters["cell"] = lambda text: text.replace("|", "\\|").replace("\n", " ")
    environment.globals["file_of"] = lambda picture: names[id(picture)]
    facts = {"results": results, "sections": shown, "figures": FIGURES}
    files[PAGE] = environment.get_template("report.html").render(facts).encode()
    files[TWIN] = environment.get_template("report.md").render(facts).encode()
    make_folder(out)
    make_folder(out / FIGURES)
    for name, content in files.items():
        write_bytes(out / name, content)


def _data_uri(shown: Plot | Picture) -> str:
    kind, data = ("image/svg+xml", shown.svg) if isinstance(shown, Plot) else ("image/jpeg", shown.jpeg)
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
