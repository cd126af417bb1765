"""The training loop: warm-up and cosine decay, clipping, averaged weights, validation, exact resume.

A resumed run repeats an unbroken one bit for bit on the same device with the same number of threads and
processes; other numbers add up in another order.
"""

from __future__ import annotations

import copy
import io
import math
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from ufuser.runtime.errors import InputError

from .checkpoint import first_line, save_checkpoint, write_atomically
from .data import Example, PatchSampler, as_float, in_two, read_grey
from .journal import Meter, Row, curve, panel, table
from .models import all_options, shape_multiple
from .objective import Objective, Stateful, at_any_size
from .precision import in_precision
from .processes import ALONE, Share, has_own_statistics, mean_over, parallel, synchronised, wait
from .recipe import OptimRecipe, Recipe


@dataclass(frozen=True)
class Run:
    """What one call of the trainer works on."""

    recipe: Recipe
    training: Sequence[Example]
    validation: Sequence[Example]
    out: Path
    device: torch.device
    resume: bool
    # What beside the recipe decides the result: stored with the weights, and the same when resumed.
    origin: Mapping[str, object] = field(default_factory=dict)
    share: Share = ALONE  # of the batch, where several processes train together


LAST, BEST, LOG, PANEL, CURVE = FILES = ("last.pt", "best.safetensors", "log.csv", "panel.png", "curve.png")

# What the parts of a run's origin are to someone who has to give them again.
ORIGINS = {
    "pairs": "set of pairs (--data)",
    "init": "--init",
    "pseudo": "--pseudo",
    "sensing_ir": "--sensing-ir",
    "sensing_vi": "--sensing-vi",
    "teacher": "--teacher",
}


def check_out(out: Path, resume: bool) -> None:
    """Whether a run can begin or go on in `out`. Leaves nothing behind.

    Raises:
        InputError: a run that is there already, or isn't where one is to be resumed; a place that can't be
            written, which would otherwise show after hours, at the first validation.
    """
    if resume and not (out / LAST).is_file():
        raise InputError(f"nothing to resume: {out / LAST} is not there")
    if not resume and (out / LAST).exists():
        raise InputError(f"{out} already holds a run: give --resume to go on with it, or another --out")
    for name in FILES:
        if (out / name).is_dir():
            raise InputError(f"cannot write {out / name}: it is a folder")
    there = next(folder for folder in (out, *out.absolute().parents) if folder.exists())
    if not there.is_dir():
        raise InputError(f"cannot make the folder {out}: {there} is a file")
    try:
        with tempfile.TemporaryFile(dir=there) as probe:
            probe.write(b"0")
    except OSError as e:
        raise InputError(f"cannot write to {there} (--out {out}): {e.strerror}") from None


def learning_rate(step: int, optim: OptimRecipe) -> float:
    """Linear warm-up, then by the recipe's schedule.

    That is a cosine from the recipe's rate to a hundredth of it, or halving every so many steps.
    """
    if step < optim.warmup:
        return optim.learning_rate * (step + 1) / optim.warmup
    if optim.schedule == "halving":
        return optim.learning_rate * 0.5 ** (step // optim.halve_every)
    done = (step - optim.warmup) / max(1, optim.steps - optim.warmup)
    return optim.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done)))


class Trainer:
    """Trains one network by one objective. `run()` returns the validation loss of the best weights."""

    def __init__(self, run: Run, model: nn.Module, objective: Objective) -> None:
        self._run, self._objective = run, objective
        # Channels last: padding and normalisation of the network are half as slow on a CPU.
        moved = model.to(run.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._model = synchronised(moved, run.share, run.device)
        self._average = copy.deepcopy(self._model).eval().requires_grad_(False)
        self._options = all_options(run.recipe.model, run.recipe.network)
        run.share.divide(run.recipe.optim.batch, "a 'batch'")  # or it isn't the mean of the processes' losses
        self._network = in_precision(parallel(self._model, run.share), run.recipe.optim.precision, run.device)
        self._optimizer = torch.optim.Adam(self._model.parameters(), run.recipe.optim.learning_rate)
        self._sampler = PatchSampler(run.training, run.recipe.data, run.recipe.seed)
        self._step = 0
        self._best = math.inf
        self._log: list[Row] = []
        self._meter = Meter(run.device)

    def run(self) -> float:
        """Train to the recipe's last step; writes best.safetensors, last.pt, log.csv and pictures in `out`.

        Of several processes only the first one validates, writes, and knows what it returns.
        """
        recipe, first = self._run.recipe, self._run.share.first
        check_out(self._run.out, self._run.resume)
        if self._run.resume:
            self._restore()
        if first and has_own_statistics(self._model, self._run.share):
            tqdm.write("on CPUs the BatchNorms of each process see its own part of the batch alone")
        try:
            self._run.out.mkdir(parents=True, exist_ok=True)
        except OSError as e:
            raise InputError(f"cannot make the folder {self._run.out}: {e.strerror}") from None
        steps = recipe.optim.steps
        with tqdm(total=steps, initial=self._step, unit="step", dynamic_ncols=True, disable=not first) as bar:
            while self._step < steps:
                begin = time.perf_counter()
                terms = self._train_step()
                self._meter.add(terms, time.perf_counter() - begin)
                self._step += 1
                rate = bar.format_dict.get("rate")  # steps a second, lately; None at first
                speed = f", {rate * recipe.optim.batch:.1f} samples/s" if rate else ""
                bar.set_postfix_str(f"loss {sum(terms.values()):.4f}{speed}", refresh=False)
                bar.update()
                if self._step % recipe.validate_every == 0 or self._step == steps:
                    self._look_back()
        return self._best

    def _look_back(self) -> None:
        """Every process says what its steps gave; the first one validates and writes."""
        share, means, cost = self._run.share, self._meter.means, self._meter.cost
        shared = mean_over(list(means.values()), share, self._run.device)
        if share.first:
            self._validate(dict(zip(means, shared, strict=True)), cost)
        wait(share)
        self._meter.reset()

    def _train_step(self) -> dict[str, float]:
        optim = self._run.recipe.optim
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate(self._step, optim)
        first, second = (
            torch.from_numpy(x).to(self._run.device)
            for x in self._sampler.batch(self._step, optim.batch, self._run.share.part)
        )
        # Not the sampler's numbers again: a sequence of its own for this step.
        rng = np.random.default_rng([self._run.recipe.seed, self._step, 1])
        terms = self._objective.train(self._network, first, second, rng)
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
            for statistic, now in zip(self._average.buffers(), self._model.buffers(), strict=True):
                statistic.copy_(now)  # running statistics are averages already
        return {k: v.item() for k, v in terms.items()}

    def _validate(self, terms: dict[str, float], cost: Row) -> None:
        """`terms` are those of training since the last time, means over its steps."""
        sums: dict[str, float] = {}
        rows: list[list[np.ndarray]] = []
        network = at_any_size(self._average, shape_multiple(self._average))
        for index, example in enumerate(self._run.validation):
            first, second = (
                torch.from_numpy(x).to(self._run.device)
                for x in in_two([as_float(read_grey(p))[None, None] for p in example.images])
            )
            rng = np.random.default_rng([self._run.recipe.seed, index, 2])  # the same each time: comparable
            with torch.no_grad():
                values, images = self._objective.validate(network, first, second, rng)
            for name, value in values.items():
                sums[name] = sums.get(name, 0.0) + value.item() / len(self._run.validation)
            if len(rows) < 6:
                rows.append([x[0, 0].cpu().numpy() for x in images])
        loss = sum(sums.values())
        self._log.append(
            {
                "step": self._step,
                "train": sum(terms.values()),
                "validation": loss,
                **{f"train_{k}": v for k, v in terms.items()},
                **{f"validation_{k}": v for k, v in sums.items()},
                **cost,
            }
        )
        self._publish(loss, rows)

    def _publish(self, loss: float, rows: list[list[np.ndarray]]) -> None:
        recipe, out = self._run.recipe, self._run.out
        notes = {"step": self._step, "validation_loss": round(loss, 6), "torch": torch.__version__}
        notes |= self._run.origin
        state = self._average.state_dict()
        if loss < self._best:
            self._best = loss
            save_checkpoint(out / BEST, state, recipe.model, recipe.text, notes, self._options)
        write_atomically(out / LOG, table(self._log))
        write_atomically(out / CURVE, curve(self._log, recipe.name))
        shown = panel(rows)
        write_atomically(out / f"panel_{self._step:06d}.png", shown)
        write_atomically(out / PANEL, shown)
        buffer = io.BytesIO()
        content = {
            "recipe": recipe.text,
            "origin": dict(self._run.origin),
            "step": self._step,
            "best": self._best,
            "log": self._log,
            "model": self._model.state_dict(),
            "average": state,
            "optimizer": self._optimizer.state_dict(),
        }
        if isinstance(self._objective, Stateful):
            content["objective"] = self._objective.state_dict()
        torch.save(content, buffer)
        write_atomically(out / LAST, buffer.getvalue())

    def _restore(self) -> None:
        last = self._run.out / LAST
        try:
            # To the CPU first: Adam keeps its step counts there, the rest is copied to where it belongs.
            content = torch.load(last, map_location="cpu", weights_only=True)
        except Exception as e:  # a broken pickle can make the reader raise anything
            raise InputError(f"cannot read {last}: {first_line(e)}") from None
        if not isinstance(content, dict) or not {"recipe", "step", "model"} <= content.keys():
            raise InputError(f"{last} is no state of a training run: expected one written by this trainer")
        if content["recipe"] != self._run.recipe.text:
            raise InputError(
                f"{last} was trained by another recipe: resume with that one, or give another --out"
            )
        before, now = content.get("origin", {}), self._run.origin
        other = sorted(k for k in {*before, *now} if before.get(k) != now.get(k))
        if other:
            what = ", ".join(ORIGINS.get(k, k) for k in other)
            raise InputError(
                f"{last} was trained with another {what}: "
                "resume with what it began with, or give another --out"
            )
        self._model.load_state_dict(content["model"])
        self._average.load_state_dict(content["average"])
        self._optimizer.load_state_dict(content["optimizer"])
        if isinstance(self._objective, Stateful):
            self._objective.load_state_dict(content["objective"])
        self._step, self._best, self._log = content["step"], content["best"], content["log"]
