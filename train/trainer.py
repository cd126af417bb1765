"""The training loop: warm-up and cosine decay, clipping, averaged weights, validation, exact resume.

A resumed run repeats an unbroken one bit for bit on the same device with the same number of threads; another
number of threads adds up in another order.
"""

from __future__ import annotations

import copy
import csv
import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from .checkpoint import first_line, save_checkpoint, write_atomically
from .data import Pair, PatchSampler, as_float, read_grey
from .errors import InputError
from .recipe import OptimRecipe, Recipe

Loss = Callable[[Tensor, Tensor, Tensor], dict[str, Tensor]]


@dataclass(frozen=True)
class Run:
    """What one call of the trainer works on."""

    recipe: Recipe
    training: list[Pair]
    validation: list[Pair]
    out: Path
    device: torch.device
    resume: bool


def learning_rate(step: int, optim: OptimRecipe) -> float:
    """Linear warm-up, then a cosine from the recipe's rate to a hundredth of it."""
    if step < optim.warmup:
        return optim.learning_rate * (step + 1) / optim.warmup
    done = (step - optim.warmup) / max(1, optim.steps - optim.warmup)
    return optim.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done)))


def pad_to_multiple(x: Tensor, multiple: int = 8) -> Tensor:
    """Reflect at the right and the bottom up to the next multiple."""
    height, width = x.shape[-2:]
    return F.pad(x, (0, -width % multiple, 0, -height % multiple), mode="reflect")


class Trainer:
    """Trains one fusion network by one loss. `run()` returns the validation loss of the best weights."""

    def __init__(self, run: Run, model: nn.Module, loss: Loss) -> None:
        self._run, self._loss = run, loss
        # Channels last: padding and normalisation of the network are half as slow on a CPU.
        self._model = model.to(run.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._average = copy.deepcopy(self._model).eval().requires_grad_(False)
        self._optimizer = torch.optim.Adam(self._model.parameters(), run.recipe.optim.learning_rate)
        self._sampler = PatchSampler(run.training, run.recipe.data, run.recipe.seed)
        self._step = 0
        self._best = math.inf
        self._log: list[dict[str, float]] = []

    @property
    def _last(self) -> Path:
        return self._run.out / "last.pt"

    def run(self) -> float:
        """Train to the recipe's last step; writes best.safetensors, last.pt, log.csv and panels in `out`."""
        recipe = self._run.recipe
        if self._run.resume:
            self._restore()
        elif self._last.exists():
            raise InputError(
                f"{self._run.out} already holds a run: give --resume to go on with it, or another --out"
            )
        try:
            self._run.out.mkdir(parents=True, exist_ok=True)
        except OSError as e:
            raise InputError(f"cannot make the folder {self._run.out}: {e.strerror}") from None
        steps = recipe.optim.steps
        with tqdm(total=steps, initial=self._step, unit="step", dynamic_ncols=True) as bar:
            while self._step < steps:
                terms = self._train_step()
                self._step += 1
                bar.set_postfix_str(f"loss {sum(terms.values()):.4f}", refresh=False)
                bar.update()
                if self._step % recipe.validate_every == 0 or self._step == steps:
                    self._validate(terms)
        return self._best

    def _train_step(self) -> dict[str, float]:
        optim = self._run.recipe.optim
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate(self._step, optim)
        ir, vi = (
            torch.from_numpy(x).to(self._run.device) for x in self._sampler.batch(self._step, optim.batch)
        )
        terms = self._loss(self._model(ir, vi), ir, vi)
        self._optimizer.zero_grad(set_to_none=True)
        total = torch.stack(list(terms.values())).sum()
        total.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self._model.parameters(), optim.clip)
        if not torch.isfinite(norm):
            raise InputError(
                f"the gradient is not finite at step {self._step}: lower the learning rate in the recipe"
            )
        self._optimizer.step()
        with torch.no_grad():
            # A short memory at first, or the average would long remember the random start.
            decay = min(optim.ema, (1 + self._step) / (10 + self._step))
            pairs = zip(self._average.parameters(), self._model.parameters(), strict=True)
            for kept, new in pairs:
                kept.lerp_(new, 1 - decay)
            for kept, new in zip(self._average.buffers(), self._model.buffers(), strict=True):
                kept.copy_(new)  # running statistics are averages already
        return {k: v.item() for k, v in terms.items()}

    def _validate(self, terms: dict[str, float]) -> None:
        sums: dict[str, float] = {}
        rows: list[list[np.ndarray]] = []
        for pair in self._run.validation:
            ir, vi = (
                torch.from_numpy(as_float(read_grey(p)))[None, None].to(self._run.device)
                for p in (pair.ir, pair.vi)
            )
            with torch.no_grad():
                fused = self._average(pad_to_multiple(ir), pad_to_multiple(vi))
                fused = fused[..., : ir.shape[-2], : ir.shape[-1]]
                for name, value in self._loss(fused, ir, vi).items():
                    sums[name] = sums.get(name, 0.0) + value.item() / len(self._run.validation)
            if len(rows) < 6:
                rows.append([x[0, 0].cpu().numpy() for x in (ir, vi, fused)])
        loss = sum(sums.values())
        self._log.append(
            {"step": self._step, "train": sum(terms.values()), "validation": loss}
            | {f"validation_{k}": v for k, v in sums.items()}
        )
        self._publish(loss, rows)

    def _publish(self, loss: float, rows: list[list[np.ndarray]]) -> None:
        recipe, out = self._run.recipe, self._run.out
        notes = {"step": self._step, "validation_loss": round(loss, 6), "torch": torch.__version__}
        state = self._average.state_dict()
        if loss < self._best:
            self._best = loss
            save_checkpoint(out / "best.safetensors", state, recipe.model, recipe.text, notes)
        table = io.StringIO()
        writer = csv.DictWriter(table, fieldnames=list(self._log[0]))
        writer.writeheader()
        writer.writerows(self._log)
        write_atomically(out / "log.csv", table.getvalue().encode())
        write_atomically(out / "panel.png", panel(rows))
        buffer = io.BytesIO()
        content = {
            "recipe": recipe.text,
            "step": self._step,
            "best": self._best,
            "log": self._log,
            "model": self._model.state_dict(),
            "average": state,
            "optimizer": self._optimizer.state_dict(),
        }
        torch.save(content, buffer)
        write_atomically(self._last, buffer.getvalue())

    def _restore(self) -> None:
        if not self._last.is_file():
            raise InputError(f"nothing to resume: {self._last} is not there")
        try:
            # To the CPU first: Adam keeps its step counts there, the rest is copied to where it belongs.
            content = torch.load(self._last, map_location="cpu", weights_only=True)
        except Exception as e:  # a broken pickle can make the reader raise anything
            raise InputError(f"cannot read {self._last}: {first_line(e)}") from None
        if not isinstance(content, dict) or not {"recipe", "step", "model"} <= content.keys():
            raise InputError(
                f"{self._last} is no state of a training run: expected one written by this trainer"
            )
        if content["recipe"] != self._run.recipe.text:
            raise InputError(
                f"{self._last} was trained by another recipe: resume with that one, or give another --out"
            )
        self._model.load_state_dict(content["model"])
        self._average.load_state_dict(content["average"])
        self._optimizer.load_state_dict(content["optimizer"])
        self._step, self._best, self._log = content["step"], content["best"], content["log"]


def panel(rows: list[list[np.ndarray]], width: int = 400) -> bytes:
    """A PNG with a row per pair: infrared, visible, fused (each H×W float in [0, 1])."""
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
