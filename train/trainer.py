"""The training loop: warm-up and cosine decay, clipping, averaged weights, validation, exact resume.

A resumed run repeats an unbroken one bit for bit on the same device with the same number of threads and
processes; other numbers add up in another order. Its state is saved at each validation, every few minutes between them,
and when a signal ends it.
"""

from __future__ import annotations

import copy
import io
import math
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ufuser.runtime.errors import InputError, first_line
from ufuser.runtime.files import make_folder, write_bytes
from ufuser.runtime.images import as_float, read_grey

from .checkpoint import save_checkpoint
from .data import PatchSampler
from .journal import Meter, Row, curve, panel, table
from .models import all_options, shape_multiple
from .networks import at_any_size, in_precision
from .objectives.objective import Stateful, Task
from .processes import (
    SINGLE,
    Processes,
    any_of,
    has_own_statistics,
    mean_over,
    parallel,
    synchronised,
    wait,
)
from .recipe import Recipe
from .sections import OptimRecipe
from .step_bar import StepBar
from .stopping import Stop


@dataclass(frozen=True)
class Run:
    """One run of the trainer."""

    recipe: Recipe
    task: Task
    out: Path
    device: torch.device
    resume: bool
    processes: Processes = SINGLE
    save_minutes: float = 10.0
    """Minutes between two savings of the state, beside those at validations."""


LAST, BEST, LOG, PANEL, CURVE = FILES = ("last.pt", "best.safetensors", "log.csv", "panel.png", "curve.png")


def check_out(out: Path, resume: bool) -> None:
    """Check that a run can begin or continue in `out`. Creates nothing.

    Raises:
        InputError: `out` holds a run already, and `resume` is not set; it cannot be written, which would otherwise
            show only at the first saving.
    """
    if not resume and (out / LAST).exists():
        raise InputError(f"{out} already holds a run: give --resume to continue it, or another --out")
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
    """Trains one network by one objective."""

    def __init__(self, run: Run, model: nn.Module) -> None:
        self._run, self._objective = run, run.task.objective
        # Channels last: padding and normalisation of the network are half as slow on a CPU.
        moved = model.to(run.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._model = synchronised(moved, run.processes, run.device)
        self._average = copy.deepcopy(self._model).eval().requires_grad_(False)
        self._options = all_options(run.recipe.model, run.recipe.network)
        run.processes.divide(run.recipe.optim.batch, "batch")  # the mean of their losses must be the batch's
        self._network = in_precision(
            parallel(self._model, run.processes), run.recipe.optim.precision, run.device
        )
        self._optimizer = torch.optim.Adam(self._model.parameters(), run.recipe.optim.learning_rate)
        self._sampler = PatchSampler(run.task.training, run.task.data, run.recipe.seed)
        self._step = 0
        self._best = math.inf
        self._log: list[Row] = []
        self._meter = Meter(run.device)
        self._saved = time.monotonic()

    def run(self) -> float:
        """Train to the recipe's last step; writes best.safetensors, last.pt, log.csv and pictures in `out`.

        Returns:
            The validation loss of the best weights; of several processes, in rank 0 only, which alone validates.
        """
        recipe, processes = self._run.recipe, self._run.processes
        check_out(self._run.out, self._run.resume)
        resumed = self._run.resume and (self._run.out / LAST).is_file()
        notes = self._restore() if resumed else []
        if self._run.resume and not resumed:
            notes.append(f"nothing to resume in {self._run.out}: training starts")
        if has_own_statistics(self._model, processes):
            notes.append("on CPUs the BatchNorms of each process see only its own part of the batch")
        make_folder(self._run.out)
        steps, batch = recipe.optim.steps, recipe.optim.batch
        with Stop() as stop, StepBar(steps, self._step, batch, processes.is_first) as bar:
            for note in notes:
                bar.note(note)
            self._saved = time.monotonic()
            self._evaluate_if_due(stop, bar)  # a run may have been stopped just before
            while self._step < steps:
                begin = time.perf_counter()
                terms = self._train_step()
                self._meter.add(terms, time.perf_counter() - begin)
                self._step += 1
                bar.step(sum(terms.values()))
                self._save_if_due(stop, bar)
                self._evaluate_if_due(stop, bar)
        return self._best

    def _save_if_due(self, stop: Stop, bar: StepBar) -> None:
        """Save the state after so many minutes; when a signal has come, save it and leave."""
        processes, device = self._run.processes, self._run.device
        late = time.monotonic() - self._saved >= 60 * self._run.save_minutes
        if not any_of(late or stop.requested, processes, device):
            return
        self._save()
        if any_of(stop.requested, processes, device):
            bar.note(f"saved at step {self._step} in {self._run.out / LAST}")
            stop.leave()

    def _evaluate_if_due(self, stop: Stop, bar: StepBar) -> None:
        """Average the training terms over all processes; rank 0 validates and writes."""
        recipe, processes = self._run.recipe, self._run.processes
        last = self._log[-1]["step"] if self._log else 0
        due = self._step % recipe.validate_every == 0 or self._step == recipe.optim.steps
        if not due or self._step == last:
            return
        means, cost = self._meter.means, self._meter.cost
        shared = mean_over(list(means.values()), processes, self._run.device)
        if processes.is_first:
            loss, rows = self._validate(stop, bar)
            self._log.append(self._row(dict(zip(means, shared, strict=True)), loss, cost))
            self._publish(sum(loss.values()), rows)
            bar.line()
        wait(processes)
        self._meter.reset()
        self._save()
        self._meter.reset()  # the memory of saving is not that of a step

    def _train_step(self) -> dict[str, float]:
        optim = self._run.recipe.optim
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate(self._step, optim)
        batch = self._sampler.batch(self._step, optim.batch, self._run.processes.part)
        images = [torch.from_numpy(x).to(self._run.device) for x in batch]
        # Independent of the sampler's random numbers.
        rng = np.random.default_rng([self._run.recipe.seed, self._step, 1])
        terms = self._objective.train(self._network, images, rng)
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
            # A smaller decay at first, or the random start would stay in the average for long.
            decay = min(optim.ema, (1 + self._step) / (10 + self._step))
            pairs = zip(self._average.parameters(), self._model.parameters(), strict=True)
            for kept, new in pairs:
                kept.lerp_(new, 1 - decay)
            for statistic, now in zip(self._average.buffers(), self._model.buffers(), strict=True):
                statistic.copy_(now)  # running statistics are averages already
        return {k: v.item() for k, v in terms.items()}

    def _validate(self, stop: Stop, bar: StepBar) -> tuple[dict[str, float], list[list[np.ndarray]]]:
        """The mean of each term over the validation examples, and the pictures to show."""
        sums: dict[str, float] = {}
        rows: list[list[np.ndarray]] = []
        network = at_any_size(self._average, shape_multiple(self._average))
        for index, example in enumerate(self._run.task.validation):
            if self._run.processes.world_size == 1:  # the others wait for the end of it
                self._save_if_due(stop, bar)
            pictures = [as_float(read_grey(p))[None, None] for p in example.images]
            images = [torch.from_numpy(x).to(self._run.device) for x in pictures]
            rng = np.random.default_rng([self._run.recipe.seed, index, 2])  # the same each time: comparable
            with torch.no_grad():
                values, shown = self._objective.validate(network, images, rng)
            for name, value in values.items():
                sums[name] = sums.get(name, 0.0) + value.item() / len(self._run.task.validation)
            if len(rows) < 6:
                rows.append([x[0, 0].cpu().numpy() for x in shown])
        return sums, rows

    def _row(self, terms: dict[str, float], sums: dict[str, float], cost: Row) -> Row:
        """A line of the log; `terms` are the means of training since the last validation."""
        return {
            "step": self._step,
            "train": sum(terms.values()),
            "validation": sum(sums.values()),
            **{f"train_{k}": v for k, v in terms.items()},
            **{f"validation_{k}": v for k, v in sums.items()},
            **cost,
        }

    def _publish(self, loss: float, rows: list[list[np.ndarray]]) -> None:
        """Write the weights if they are the best so far, the log and the pictures."""
        recipe, out = self._run.recipe, self._run.out
        notes = {"step": self._step, "validation_loss": round(loss, 6), "torch": torch.__version__}
        notes |= {"steps": recipe.optim.steps, **self._run.task.origin}
        if loss < self._best:
            self._best = loss
            state = self._average.state_dict()
            save_checkpoint(out / BEST, state, recipe.model, recipe.text, notes, self._options)
        write_bytes(out / LOG, table(self._log))
        write_bytes(out / CURVE, curve(self._log, recipe.name))
        picture = panel(rows)
        write_bytes(out / f"panel_{self._step:06d}.png", picture)
        write_bytes(out / PANEL, picture)

    def _save(self) -> None:
        """Write the state that `_restore` reads; rank 0 does, with the mean of all processes' terms."""
        run, sums = self._run, self._meter.sums
        shared = mean_over(list(sums.values()), run.processes, run.device)
        self._saved = time.monotonic()
        if not run.processes.is_first:
            return
        content = {
            "recipe": run.recipe.text,
            "origin": dict(run.task.origin),
            "steps": run.recipe.optim.steps,
            "step": self._step,
            "best": self._best,
            "log": self._log,
            "meter": self._meter.state(dict(zip(sums, shared, strict=True))),
            "model": self._model.state_dict(),
            "average": self._average.state_dict(),
            "optimizer": self._optimizer.state_dict(),
        }
        if isinstance(self._objective, Stateful):
            content["objective"] = self._objective.state_dict()
        buffer = io.BytesIO()
        torch.save(content, buffer)
        write_bytes(run.out / LAST, buffer.getvalue())

    def _restore(self) -> list[str]:
        """Read the state of the run so far. Returns what the user must know of it."""
        last = self._run.out / LAST
        try:
            # To the CPU first: Adam keeps its step counts there, and `load_state_dict` copies the rest to the device.
            content = torch.load(last, map_location="cpu", weights_only=True)
        except Exception as e:  # a broken pickle can make the reader raise anything
            raise InputError(f"cannot read {last}: {first_line(e)}") from None
        if not isinstance(content, dict) or not {"recipe", "step", "model"} <= content.keys():
            raise InputError(
                f"{last} is not the state of a training run: expected one written by this trainer"
            )
        if content["recipe"] != self._run.recipe.text:
            raise InputError(
                f"{last} was trained by another recipe: resume with that one, or give another --out"
            )
        before, now = content.get("origin", {}), self._run.task.origin
        other = sorted(k for k in {*before, *now} if before.get(k) != now.get(k))
        if other:
            flags = ["set of pairs (--data)" if k == "pairs" else f"--{k.replace('_', '-')}" for k in other]
            raise InputError(
                f"{last} was trained with another {', '.join(flags)}: "
                "resume with the same, or give another --out"
            )
        self._model.load_state_dict(content["model"])
        self._average.load_state_dict(content["average"])
        self._optimizer.load_state_dict(content["optimizer"])
        if isinstance(self._objective, Stateful):
            self._objective.load_state_dict(content["objective"])
        self._step, self._best, self._log = content["step"], content["best"], content["log"]
        if "meter" in content:  # a run of an earlier version was saved at its validations only
            self._meter.restore(content["meter"])
        return self._about(content.get("steps"))

    def _about(self, before: int | None) -> list[str]:
        """Of the number of steps: the run's so far, None if unknown, and the one that is asked for now."""
        now = self._run.recipe.optim.steps
        if self._step >= now:
            return [f"the run is at step {self._step} of {now}: --steps with a larger number makes it longer"]
        if before not in (None, now):
            return [
                f"the run was for {before} steps and is now for {now}: its learning rate follows the new number"
            ]
        return []
