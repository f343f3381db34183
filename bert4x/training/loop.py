"""A run of training: epochs, scores, best weights, and a folder from which a killed run goes on as if nothing had been.

The folder holds metrics.jsonl, a line for every update and for every evaluation, and training/state.safetensors:
weights, optimizer, averages, and how far it has come. Both change as a whole, or by lines added at the end.
"""

import json
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from keras import ops
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from bert4x.checkpoints.tensors import atomic_write
from bert4x.errors import ConfigError, CorruptFileError, RunError
from bert4x.json_files import check_kinds
from bert4x.optimizers.schedules import warmup_decay
from bert4x.training.batches import Batches
from bert4x.training.interruptions import Disk, Signals
from bert4x.training.report import is_best
from bert4x.training.trainer import Trainer

METRICS = "metrics.jsonl"
STATE = "training/state.safetensors"
KINDS = {**dict.fromkeys(("update", "epoch", "batch", "waited"), (int,)), "scores": (dict,), "finished": (bool,)}
KINDS |= dict.fromkeys(("best", "best_epoch", "seconds"), (int, float))
FLUSH = 20  # updates between looks at the losses: each look waits for the device


@dataclass(frozen=True)
class Schedule:
    """How long to train, and how fast.

    Args:
        epochs: times that every example is seen.
        max_steps: updates at most, whatever the epochs.
        learning_rate: its peak, reached after the share `warmup` of all updates.
        decay: from the peak on "linear" or "cosine" to 0, or "constant".
        accumulation: batches of one update.
        score_every: updates after which weights are scored within an epoch too; None scores them at its end only.
        patience: scores without a better one before training stops; None never stops it.
        save_every: seconds between two states.
    """

    epochs: int = 3
    batch_size: int = 16
    max_steps: int | None = None
    learning_rate: float = 1e-4
    warmup: float = 0.1
    decay: str = "linear"
    accumulation: int = 1
    score_every: int | None = None
    patience: int | None = None
    seed: int = 0
    save_every: float = 120

    def rate(self, update: int, updates: int) -> float:
        """The learning rate of update 1 to `updates`."""
        total = updates + 1  # at which it would be 0
        return self.learning_rate * warmup_decay(update, total, self.warmup * total, self.decay)


@dataclass
class RunProgress:
    """How far a run has come: all of its state that is no tensor."""

    update: int = 0  # of all epochs
    epoch: int = 0  # that is being trained; below it all are evaluated
    batch: int = 0  # the next one of that epoch
    best: float | None = None
    best_epoch: float | None = None  # epochs that the best weights have seen
    waited: int = 0  # scores since the last that was better than all before it
    scores: dict[str, float] = field(default_factory=dict)  # of the best weights
    seconds: float = 0.0  # of training, over all sittings
    finished: bool = False


class Loop:
    """Trains a task on examples, and goes on where it was interrupted.

    Args:
        folder: of the run; with None nothing is written, so that an interrupted run cannot go on.
        batch: (examples, length, draw) -> (inputs, targets).
        evaluate: () -> scores, called after every epoch (and within, by the schedule), with the averaged weights if
            there are any.
        keep: (scores) -> None, called when they are the best so far: writes the weights.
        best: which score says so.
        longest: tokens that the model can take.
        batches: of the examples; by default those of similar length, a text in a row.
        observe: called with every record of metrics.jsonl.
    """

    def __init__(
        self,
        folder: str | os.PathLike | None,
        trainer: Trainer,
        examples: Sequence,
        batch: Callable,
        schedule: Schedule,
        *,
        evaluate: Callable | None = None,
        keep: Callable = lambda scores: None,
        best: str = "",
        longest: int | None = None,
        batches: Batches | None = None,
        observe: Callable = lambda record: None,
    ):
        self.folder = None if folder is None else Path(folder)
        self.trainer, self.schedule = trainer, schedule
        self.examples, self.batch = examples, batch
        self.evaluate, self.keep, self.best, self.observe = evaluate, keep, best, observe
        self.batches = batches or Batches([e.length for e in examples], schedule.batch_size, schedule.seed, longest)
        per_epoch = -(-len(self.batches) // schedule.accumulation)
        self.updates = schedule.epochs * per_epoch
        if schedule.max_steps:
            self.updates = min(self.updates, schedule.max_steps)
        self.progress = RunProgress()
        self.losses: list[tuple[int, float, object]] = []
        self.interrupted = False

    def run(self) -> RunProgress:
        """Trains to the end.

        Raises: KeyboardInterrupt after Ctrl-C or SIGTERM, once the state is written; RunError when the loss is not
        finite or the disk is full.
        """
        saved = time.monotonic()
        with Signals(self):
            while not self.progress.finished:
                began = time.monotonic()
                ended = self.step()
                self.progress.seconds += time.monotonic() - began
                if ended or self.scored_within():
                    self.score(ended)
                late = time.monotonic() - saved > self.schedule.save_every
                if ended or late or self.interrupted or self.progress.finished:
                    self.save()
                    saved = time.monotonic()
                if self.interrupted:
                    raise KeyboardInterrupt
        return self.progress

    def step(self) -> bool:
        """One update; returns whether it was the last of its epoch."""
        p, plan = self.progress, self.batches.epoch(self.progress.epoch)
        chosen = range(p.batch, min(p.batch + self.schedule.accumulation, len(plan)))
        micro_batches = []
        for number in chosen:
            rows, length = plan[number]
            draw = self.batches.draw(p.epoch, number)
            micro_batches.append(self.batch([self.examples[i] for i in rows], length, draw))
        rate = self.schedule.rate(p.update + 1, self.updates)
        loss = self.trainer.learn(micro_batches, rate)
        p.update, p.batch = p.update + 1, chosen.stop
        self.losses.append((p.update, rate, loss))
        ended = p.batch == len(plan) or p.update == self.updates
        if len(self.losses) >= FLUSH:
            self.flush()
        return ended

    def scored_within(self) -> bool:
        """Whether the weights are scored now, at whatever place in an epoch."""
        every = self.schedule.score_every
        return bool(every) and self.evaluate is not None and self.progress.update % every == 0

    def score(self, ended: bool) -> None:
        """Scores the weights, at the end of an epoch or within, keeps them if they are the best, and says whether
        training is over.
        """
        self.flush()
        p, scores = self.progress, {}
        seen = p.epoch + 1 if ended else round(p.epoch + p.batch / len(self.batches), 3)
        if self.evaluate is not None:
            with self.trainer.averaged():
                scores = self.evaluate()
                p.waited = 0 if p.best is None or scores[self.best] > p.best else p.waited + 1
                if is_best(scores[self.best], p.best):
                    p.best, p.best_epoch, p.scores = scores[self.best], seen, scores
                    self.keep(scores)
        if ended:
            p.epoch, p.batch = p.epoch + 1, 0
        patience = self.schedule.patience
        p.finished = p.update >= self.updates or (patience is not None and p.waited >= patience)
        if self.evaluate is None and p.finished:
            with self.trainer.averaged():
                self.keep({})
        self.write([{"epoch": seen, "update": p.update, "seconds": round(p.seconds, 2), **scores}])

    def flush(self) -> None:
        """Writes the losses of the last updates. Raises: RunError when one is not finite."""
        records = [{"update": update, "loss": float(loss), "learning_rate": rate} for update, rate, loss in self.losses]
        self.losses = []
        self.write(records)
        bad = next((record for record in records if not math.isfinite(record["loss"])), None)
        if bad is not None:
            raise RunError(
                f"the loss of update {bad['update']} is {bad['loss']}; nothing was saved since. Try a lower rate"
                f" than {self.schedule.learning_rate:g}, or float32; with a task of your own, see whether every label"
                " is in range"
            )

    def write(self, records: Sequence[dict]) -> None:
        """Adds lines to the metrics."""
        if self.folder is not None:
            with Disk(self.folder), (self.folder / METRICS).open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
        for record in records:
            self.observe(record)

    def save(self) -> None:
        """Writes the state, as a whole or not at all."""
        self.flush()
        if self.folder is None:
            return
        tensors = {str(i): np.asarray(ops.convert_to_numpy(v.value)) for i, v in enumerate(self.trainer.kept)}
        with Disk(self.folder), atomic_write(self.folder / STATE) as path:
            save_file(tensors, path, metadata={"progress": json.dumps(vars(self.progress))})

    def resume(self) -> bool:
        """Goes on from the state in the folder; returns whether there is one.

        Raises: CorruptFileError; ConfigError when it is that of another model.
        """
        if self.folder is None:
            return False
        path = self.folder / STATE
        if not path.exists():
            self.forget(0)
            return False
        try:
            with safe_open(path, "numpy") as file:
                said = json.loads(file.metadata()["progress"])
                check_kinds(said, KINDS, f"{path}: progress")
                progress = RunProgress(**said)
                found = [file.get_tensor(str(i)) for i in range(len(list(file.keys())))]
        except (SafetensorError, KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise CorruptFileError(f"{path} holds no state of training: {error}; start in another folder") from error
        shapes = [tuple(v.shape) for v in self.trainer.kept]
        if [value.shape for value in found] != shapes:
            raise ConfigError(f"{path} holds the state of another model or optimizer; resume with the arguments it had")
        for variable, value in zip(self.trainer.kept, found, strict=True):
            variable.assign(value)
        self.progress = progress
        self.forget(self.progress.update)
        return True

    def forget(self, update: int) -> None:
        """Drops the metrics of updates after the state, and a line that was half written; they come again."""
        path = self.folder / METRICS
        kept = [record for record in read_metrics(path) if record["update"] <= update]
        with Disk(self.folder), atomic_write(path) as file:
            file.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in kept), "utf-8")


def read_metrics(path: str | os.PathLike) -> list[dict]:
    """The records of a metrics.jsonl, without a last line that was cut off."""
    if not Path(path).exists():
        return []
    records = []
    for line in Path(path).read_text("utf-8", errors="replace").split("\n"):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(record, dict) and type(record.get("update")) is int:
            records.append(record)
    return records
