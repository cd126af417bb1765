"""Tables of the report, with printed figures beside measured ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from ufuser.benchmarks import published
from ufuser.benchmarks.audit import TOLERANCE, weights_used
from ufuser.benchmarks.peak import reached
from ufuser.benchmarks.report_plots import alike, label
from ufuser.benchmarks.results import Audited, Latency, Quality, Results
from ufuser.benchmarks.sizes import Size, as_text, parse_size, threads_text

EAGER = "PyTorch eager"
_USUAL = (480, 640)
_ALIASES = {
    "auifnet": "auif",
    "did": "didfuse",
    "emma": "ufuser",
    "rec": "reconet",
    "rfn": "rfnet",
    "rfnnest": "rfnest",
    "sdn": "sdnet",
    "tard": "tardal",
    "def": "defusion",
    "u2f": "u2fusion",
}
"""Method names as printed in the papers → names as their authors write them."""
_OURS = {"emma": "EMMA", "fnet": "FNet", "daefuse": "DAE-Fuse"}


@dataclass(frozen=True, slots=True)
class Table:
    """Table of text cells; the first column names the row."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    muted: frozenset[int] = frozenset()
    """Rows that were not measured by this run."""
    flagged: frozenset[int] = frozenset()


def common_setting(runs: Iterable[Latency]) -> tuple[Size, int] | None:
    """The size and number of threads at which most contenders were timed; of equals the usual size, most threads."""
    counts = Counter((run.size, run.threads) for run in runs if run.batch == 1)
    if not counts:
        return None
    return max(counts, key=lambda s: (counts[s], s[0] == _USUAL, s[1], s[0]))


def latency_tables(results: Results) -> list[Table]:
    """At the common setting, by size, by threads, by batch, and what the papers printed."""
    setting = common_setting(results.latency)
    if setting is None:
        return []
    tables = [_at_setting(results, *setting), _by_size(results, setting[1])]
    tables.append(_scaling(results, "Threads", "threads", setting))
    tables.append(_scaling(results, "Batches", "batch", setting))
    return [table for table in [*tables, _printed(results)] if table is not None]


def _at_setting(results: Results, size: Size, threads: int) -> Table:
    runs = [r for r in results.latency if (r.size, r.threads, r.batch) == (size, threads, 1)]
    eager = {(run.model, run.run): run for run in runs if run.engine == EAGER}
    rows = []
    for run in sorted(runs, key=lambda r: r.p50_ms):
        under = reached(run, results.cost, results.convolution_peaks, results.copy_peaks)
        beside = eager.get((run.model, run.run))
        faster = "" if beside is None else f"{_times_faster(beside, run):.2f}×"
        rows.append(
            (
                label(run),
                f"{run.p50_ms:.1f}",
                f"{run.p95_ms:.1f}",
                f"{run.p99_ms:.1f}",
                f"{run.fps:.2f}",
                faster,
                "" if under is None else f"{under.share:.0%}",
                _optional(run.peak_memory_mib, ".0f"),
                _optional(run.cold_start_s, ".2f"),
                _error(run),
            )
        )
    head = (
        "contender",
        "p50 ms",
        "p95 ms",
        "p99 ms",
        "pairs/s",
        "eager / this",
        "of conv. peak",
        "peak MiB",
        "cold start s",
        "largest error, PSNR",
    )
    references = sorted({run.error.reference for run in runs if run.error})
    counts = sorted({len(run.samples_ms) for run in runs})
    notes = [f"{' or '.join(map(str, counts))} repetitions each."]
    if len({run.run for run in runs}) > 1:
        notes.append("One row per run; ratios use repetitions of the same run only.")
    notes += [f"Error against {reference}." for reference in references]
    return Table(f"Latency at {as_text(size)}, {threads_text(threads)}", head, tuple(rows), tuple(notes))


def _times_faster(slow: Latency, fast: Latency) -> float:
    """Median ratio of the repetitions of one run, which drift does not affect; else the ratio of the medians."""
    if len(slow.samples_ms) != len(fast.samples_ms):
        return slow.p50_ms / fast.p50_ms
    return median(a / b for a, b in zip(slow.samples_ms, fast.samples_ms, strict=True))


def _by_size(results: Results, threads: int) -> Table | None:
    sizes = sorted({r.size for r in results.latency if r.threads == threads}, key=lambda s: s[0] * s[1])
    if len(sizes) < 2:
        return None
    runs = {(r.contender, r.size): r for r in results.latency if r.threads == threads and r.batch == 1}
    rows = [
        (
            label(next(r for (who, _), r in runs.items() if who == contender)),
            *(_optional(run.p50_ms if (run := runs.get((contender, s))) else None, ".1f") for s in sizes),
        )
        for contender in dict.fromkeys(contender for contender, _ in runs)
    ]
    return Table(
        f"Median milliseconds by size, {threads_text(threads)}",
        ("contender", *map(as_text, sizes)),
        tuple(rows),
    )


def _scaling(results: Results, title: str, axis: str, setting: tuple[Size, int]) -> Table | None:
    """Pairs per second against threads or batch; for batches also milliseconds per pair."""
    size, threads = setting
    held = [
        r
        for r in results.latency
        if r.size == size and (r.batch == 1 if axis == "threads" else r.threads == threads)
    ]
    steps = sorted({getattr(r, axis) for r in held})
    if len(steps) < 2:
        return None
    found = {(r.contender, getattr(r, axis)): r for r in held}
    rows = []
    for contender in dict.fromkeys(r.contender for r in held):
        runs = [found.get((contender, step)) for step in steps]
        there = [run for run in runs if run is not None]
        if len(there) < 2:
            continue
        gain = there[-1].fps / there[0].fps
        rows.append(
            (label(there[0]), *("" if r is None else _throughput(r, axis) for r in runs), f"{gain:.2f}×")
        )
    head = ("contender", *(f"{step}" for step in steps), "last / first")
    what = "pairs per second" if axis == "threads" else "pairs per second (median ms per pair)"
    return Table(f"{title}: {what} at {as_text(size)}", head, tuple(rows)) if rows else None


def _throughput(run: Latency, axis: str) -> str:
    return f"{run.fps:.2f}" if axis == "threads" else f"{run.fps:.2f} ({run.p50_ms / run.batch:.1f})"


def _printed(results: Results) -> Table:
    """Printed cost and runtime of every method, with the measured figures of those that were run."""
    table = published.load("fnet_1_cost")
    size = parse_size(table.resolution)
    fastest: dict[str, Latency] = {}
    for run in results.latency:
        known = fastest.get(alike(run.model))
        if run.size == size and run.batch == 1 and (known is None or run.p50_ms < known.p50_ms):
            fastest[alike(run.model)] = run
    rows = []
    for row in table.rows:
        name = alike(row["method"])
        here = fastest.get(_ALIASES.get(name, name))
        rows.append(
            (
                row["method"],
                row["runtime_s"],
                f"{here.p50_ms / 1000:.3f} ({here.engine} {here.precision})" if here else "",
                row["params_k"],
                row["flops_g"],
                f"{weights_used(row, size):.3f}",
            )
        )
    head = (
        "method",
        f"seconds, {table.gpu}",
        "seconds measured, fastest",
        "parameters K",
        "“FLOPs” G",
        "“FLOPs” per weight and pixel",
    )
    notes = (
        f"{table.paper}, {table.printed_as}, at {table.resolution}. EMMA was run as ufuser and FNet as fnet, both "
        f"with exact rewrites.",
        *table.remarks,
        "Per weight and pixel: 1 if every weight is used once per pixel, less at lower resolutions, more if weights "
        "are reused.",
    )
    return Table("Printed and measured costs and runtimes", head, tuple(rows), notes)


def cost_tables(results: Results) -> list[Table]:
    """Costs of the graphs, and the audit of the printed figures."""
    tables = []
    if results.cost:
        rows = tuple(
            (
                c.model,
                as_text(c.size),
                f"{c.parameters / 1e3:.1f}",
                f"{c.macs / 1e9:.3f}",
                f"{2 * c.macs / 1e9:.3f}",
                f"{c.bytes_moved / 2**20:.0f}",
                f"{c.peak_activation_bytes / 2**20:.1f}",
            )
            for c in results.cost
        )
        head = ("model", "size", "weights K", "GMACs", "GFLOPs", "MiB moved", "activations MiB")
        notes = ("Counted on the fp32 graph. A multiply-accumulate is two FLOPs.",)
        tables.append(Table("Cost of the deployed graphs", head, rows, notes))
    for size in dict.fromkeys(row.size for row in results.audit):
        tables.append(_audit([row for row in results.audit if row.size == size], size))
    return tables


def _audit(rows: Sequence[Audited], size: Size) -> Table:
    """The audit at one size."""
    cells: list[tuple[str, ...]] = []
    reasons: dict[str, int] = {}
    flagged = set()
    for row in rows:
        if abs(row.difference) > TOLERANCE:
            flagged.add(len(cells))
        note = reasons.setdefault(row.reason, len(reasons) + 1) if row.reason else 0
        cells.append(
            (
                f"{row.network}, {row.quantity}",
                f"{row.printed:.2f}",
                f"{row.recomputed:.3f}",
                _difference(row) + (f" [{note}]" if note else ""),
            )
        )
    notes = [f"[{number}] {reason}." for reason, number in reasons.items()]
    notes.append(
        f"Flagged beyond {TOLERANCE:.0%}. EMMA and FNet: PyTorch's counter on the published definitions. The others: "
        f"their ONNX graphs, compared with the printed figure of the same network."
    )
    if any(row.scaled for row in rows):
        notes.append(
            f"Printed for {published.load('fnet_1_cost').resolution}, scaled by the number of pixels."
        )
    title = f"Audit of the printed costs at {as_text(size)}"
    return Table(
        title,
        ("network", "printed", "recomputed", "difference"),
        tuple(cells),
        tuple(notes),
        flagged=frozenset(flagged),
    )


def _difference(row: Audited) -> str:
    """The difference in percent, or as a factor if it is large."""
    factor = row.recomputed / row.printed
    return f"{factor:,.0f}×" if factor > 10 else f"{row.difference:+.1%}"


def roofline_table(results: Results) -> Table | None:
    """Measured peaks and the runs below them."""
    rows = []
    for run in results.latency:
        r = reached(run, results.cost, results.convolution_peaks, results.copy_peaks)
        if r is not None:
            rows.append(
                (
                    label(run),
                    as_text(run.size),
                    str(run.threads),
                    f"{run.p50_ms:.1f}",
                    f"{r.convolution_ms:.1f}",
                    f"{r.copy_ms:.1f}",
                    f"{r.share:.0%}",
                    r.bound,
                )
            )
    peaks = [
        f"Peak of convolution, {p.engine}, {p.precision}, {threads_text(p.threads)}: "
        f"{p.gmacs_per_s:.1f} GMAC/s ({p.layer})."
        for p in results.convolution_peaks
    ]
    peaks += [
        f"Peak of copying, {threads_text(c.threads)}: {c.gbytes_per_s:.1f} GB/s." for c in results.copy_peaks
    ]
    if not peaks:
        return None
    head = (
        "contender",
        "size",
        "threads",
        "p50 ms",
        "MACs at peak, ms",
        "bytes at peak, ms",
        "of conv. peak",
        "lower roof",
    )
    return Table("Bounds", head, tuple(rows), tuple(peaks))


def quality_table(measured: Quality) -> Table:
    """Measured methods, best first, each followed by its printed rows; then the other printed rows."""
    columns = list(next(iter(measured.means.values()), {}))
    printed = _printed_quality(measured.dataset, columns)
    rows: list[tuple[str, ...]] = []
    muted: set[int] = set()

    def add(name: str, source: str, values: Sequence[str]) -> None:
        if source:
            muted.add(len(rows))
        rows.append((name, source or "measured", *values))

    for method in sorted(measured.mean_rank, key=lambda m: measured.mean_rank[m]):
        values = [_optional(measured.means[method].get(c), ".3f") for c in columns]
        add(method, "", [*values, f"{measured.mean_rank[method]:.2f}"])
        for name, shown, source, cells in printed:
            if name == alike(method):
                add(f"↳ {shown}", source, [*cells, ""])
    there = {alike(method) for method in measured.mean_rank}
    for name, shown, source, cells in printed:
        if name not in there:
            add(shown, source, [*cells, ""])
    said = "; ".join(f"{name}: {value}" for name, value in measured.conventions.items())
    notes = (
        said,
        "Mean rank among the measured methods; lower is better. CE and MSE: lower is better.",
        "Printed figures come from the papers, with their pictures, splits and conventions. ufuser, fnet and daefuse "
        "are the networks of EMMA, FNet and DAE-Fuse as trained by this project.",
    )
    head = ("method", "from", *columns, "mean rank")
    return Table(f"Quality on {measured.dataset}", head, tuple(rows), notes, frozenset(muted))


def _printed_quality(dataset: str, columns: Sequence[str]) -> list[tuple[str, str, str, list[str]]]:
    """Matched name, printed name, table and cells of the given columns for every printed row."""
    found = []
    for name in published.names():
        table = published.load(name)
        if table.keys != ("dataset", "method") or not set(table.columns) & set(columns):
            continue
        paper = name.split("_")[0]
        for row in table.rows:
            if alike(row["dataset"]) == alike(dataset):
                method = _OURS[paper] if row["method"] == "Ours" else row["method"]
                normal = _ALIASES.get(alike(method), alike(method))
                source = f"{_OURS[paper]}, {table.printed_as}"
                found.append((normal, method, source, [row.get(c, "") for c in columns]))
    return found


def energy_table(results: Results) -> Table | None:
    """Millijoules per pair, or the reason why there are none."""
    rows = tuple(
        (
            f"{e.model}, {e.engine} {e.precision}, {as_text(e.size)}, {threads_text(e.threads)}",
            f"{e.millijoules:.0f}",
            f"{e.idle_w:.2f}",
            f"{e.busy_w:.2f}",
            f"{e.frames}",
            e.meter,
        )
        for e in results.energy
    )
    head = ("contender", "mJ per pair above idle", "idle W", "busy W", "pairs", "meter")
    if rows:
        return Table("Energy", head, rows)
    if results.energy_absent:
        return Table("Energy", (), (), (f"Not measured on this machine: {results.energy_absent}.",))
    return None


def _optional(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _error(run: Latency) -> str:
    if run.error is None:
        return ""
    psnr = "" if run.error.psnr_db is None else f", {run.error.psnr_db:.1f} dB"
    return f"{run.error.largest:.1e}{psnr}"
