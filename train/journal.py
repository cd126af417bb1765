"""Records of a run: log.csv, the curve, panels of validation, time and memory of a step."""

from __future__ import annotations

import contextlib
import csv
import io
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

Row = dict[str, float | None]  # a line of log.csv; None where a value is unknown


class Meter:
    """Means of the loss terms and cost of training steps since the last reset."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.reset()

    def reset(self) -> None:
        """Start a new mean."""
        self._sums: dict[str, float] = {}
        self._seconds, self._steps = 0.0, 0
        _reset_peak(self._device)

    def add(self, terms: dict[str, float], seconds: float) -> None:
        """Add a step."""
        for name, value in terms.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._seconds += seconds
        self._steps += 1

    def state(self, sums: dict[str, float]) -> dict[str, object]:
        """What `restore` needs, with the sums of `sums` in place of its own."""
        return {"sums": dict(sums), "seconds": self._seconds, "steps": self._steps}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on with the mean that was being made."""
        self.reset()
        self._sums, self._seconds, self._steps = dict(state["sums"]), state["seconds"], state["steps"]

    @property
    def sums(self) -> dict[str, float]:
        """Sum of each term over the steps."""
        return dict(self._sums)

    @property
    def means(self) -> dict[str, float]:
        """Mean of each term over the steps."""
        return {name: total / self._steps for name, total in self._sums.items()}

    @property
    def cost(self) -> Row:
        """Seconds per step and peak memory in MiB: allocated on a GPU, else resident in the process."""
        peak = _peak(self._device)
        return {
            "seconds_per_step": round(self._seconds / self._steps, 4),
            "peak_mib": None if peak is None else round(peak / 2**20, 1),
        }


def _reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    # Linux can reset the high-water mark to the memory in use. Elsewhere it is that of the whole run.
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak(device: torch.device) -> int | None:
    """Bytes, or None where the system does not provide it."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(x.split()[1]) * 1024 for x in lines if x.startswith("VmHWM:")), None)


def table(log: list[Row]) -> bytes:
    """log.csv: a line per validation."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(log[0]))
    writer.writeheader()
    writer.writerows(log)
    return text.getvalue().encode()


def curve(log: list[Row], title: str) -> bytes:
    """A PNG of the loss and of each of its terms over steps: dashed in training, solid in validation.

    Terms that only training has, such as an adversarial one, are dashed only.
    """
    from matplotlib.figure import Figure  # slow to import: only where a curve is drawn

    figure = Figure(figsize=(12.5, 4.5), dpi=100)
    steps = [row["step"] for row in log]
    names = [key.removeprefix("train_") for key in log[0] if key.startswith("train_")]
    axes = figure.subplots(1, 2)
    for axis, wanted in zip(axes, ([""], names), strict=True):
        for k, name in enumerate(wanted):
            for side, style in (("train", "--"), ("validation", "-")):
                key = f"{side}_{name}" if name else side
                if key not in log[0]:
                    continue
                values = [row[key] for row in log]
                label = f"{name} ({side})" if name else side
                axis.plot(steps, values, style, marker=".", markersize=4, color=f"C{k}", label=label)
        axis.set_xlabel("step")
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize=8)
    axes[1].legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1.0))  # so many would cover the lines
    axes[0].set_title(f"{title}: loss")
    axes[1].set_title("its terms, weighted")
    figure.subplots_adjust(left=0.05, right=0.84, top=0.92, bottom=0.11, wspace=0.14)
    data = io.BytesIO()
    figure.savefig(data, format="png")
    return data.getvalue()


def panel(rows: list[list[np.ndarray]], width: int = 400) -> bytes:
    """A PNG with a row per example: infrared, visible, fused, … (each H×W float in [0, 1])."""
    strips = [
        np.hstack(
            [
                cv2.resize(x, (width, max(1, width * x.shape[0] // x.shape[1])), interpolation=cv2.INTER_AREA)
                for x in row
            ]
        )
        for row in rows
    ]
    return bytes(cv2.imencode(".png", np.rint(np.clip(np.vstack(strips), 0, 1) * 255).astype(np.uint8))[1])
