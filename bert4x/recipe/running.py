"""One run of a recipe: its folder, training that can be killed and resumed, a summary."""

import contextlib
import dataclasses
import json
import os
import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bert4x.checkpoints.tensors import atomic_write
from bert4x.chinese import line
from bert4x.errors import RunError
from bert4x.json_files import read_json
from bert4x.recipe.arguments import Arguments
from bert4x.recipe.folder import alone, write_json
from bert4x.training.report import Display, card, versions

ARGUMENTS, VERSIONS, CARD, CURVES = "args.json", "versions.json", "README.md", "curves.png"
ADAPTERS = "lora/adapter_model.safetensors"
# What may differ between a run and its resumption: none of it changes a result (devices: but for the order of sums).
FREE = ("output", "resume", "save_every", "json", "verbose", "devices", "model_parallel")


@dataclass(frozen=True)
class Report:
    """How a run ended: its best scores, how many epochs those weights had seen, and the seconds it trained.

    `records` are those of metrics.jsonl: the loss of every update, the scores of every epoch.
    """

    scores: dict[str, float]
    best_epoch: float | None
    updates: int
    seconds: float
    folder: Path | None
    records: list[dict] = dataclasses.field(default_factory=list, repr=False)

    @property
    def history(self) -> dict[str, list[float]]:
        """For each time that the weights were scored, by name: the epochs seen, the mean loss since the last, and the
        scores. Made for `pandas.DataFrame`, and for drawing.
        """
        found: dict[str, list[float]] = {}
        losses: list[float] = []
        for record in self.records:
            if "loss" in record:
                losses.append(record["loss"])
                continue
            loss = {"loss": sum(losses) / len(losses)} if losses else {}
            values = {name: value for name, value in record.items() if name not in ("update", "seconds")}
            for name, value in (values | loss).items():
                found.setdefault(name, []).append(value)
            losses = []
        return found


class Run:
    """The folder of a run, and what happens in it: args.json, versions.json, metrics.jsonl, curves.png, README.md, the
    best weights with config and vocabulary, and training/ to resume from.

    Raises: RunError when the folder holds a run already, or one of other arguments, or when another is at work in it.
    """

    def __init__(self, args: Arguments):
        import keras

        from bert4x.training.loop import STATE

        self.args, self.folder = args, Path(args.output)
        self.state = self.folder / STATE
        if args.devices > 1 or args.model_parallel > 1:
            keras.distribution.set_distribution(distribution(args.devices, args.model_parallel, args.batch_size))
        with contextlib.ExitStack() as held:
            held.enter_context(alone(self.folder))
            self.open_folder()
            self.held = held.pop_all()  # until the run ends
        keras.utils.set_random_seed(args.seed)

    def __enter__(self):
        return self

    def __exit__(self, kind, error, traceback):
        self.held.close()
        if kind is KeyboardInterrupt and (self.folder / "training").exists():
            self.say(line("interrupted; --resume auto goes on from update {update}", update=self.updates_saved()))

    def open_folder(self) -> None:
        """Makes the folder, or finds the run of the same arguments in it."""
        now = json.loads(json.dumps({k: v for k, v in vars(self.args).items() if k not in FREE}, default=str))
        path, state = self.folder / ARGUMENTS, self.state
        smoked = self.args.smoke and path.exists() and read_json(path).get("smoke")
        if smoked and self.args.resume != "auto":
            state.unlink(missing_ok=True)
        if path.exists() and state.exists():
            if self.args.resume != "auto":
                raise RunError(f"{self.folder} holds a run; go on with --resume auto, or choose another --output")
            before = read_json(path)
            different = sorted(name for name in now | before if now.get(name) != before.get(name))
            if different:
                was = ", ".join(f"{name} = {before.get(name)!r}, now {now.get(name)!r}" for name in different)
                raise RunError(f"the run in {self.folder} has other arguments: {was}. Choose another --output")
            return
        write_json(self.folder / VERSIONS, versions())
        write_json(path, now)

    def load(self, application: str | None = None, **options):
        """The model to start from, in the run's precision."""
        from bert4x.models.build import load

        options = {"dtype": self.args.precision, "recompute": self.args.recompute} | options
        return load(self.args.model, application=application, **options)

    def data(self, read: Callable[[Path], list], toy: str | os.PathLike) -> tuple[list, list]:
        """The rows to train on, and those to score on, by a reader of one file; `toy` is read when none is given.

        Raises: DataError, RunError when a file does not exist.
        """
        if self.args.train is None and not self.args.smoke:
            self.say(line("no --train: toy data, {toy}, which show no more than that it runs", toy=toy))
        for file in (self.args.train, self.args.valid):
            if file is not None and not file.is_file():
                raise RunError(f"{file} does not exist; expected a file of examples")
        rows = read(self.args.train or Path(toy))
        if self.args.valid:
            return rows, read(self.args.valid)
        order = list(range(len(rows)))
        random.Random(0).shuffle(order)
        held = set(order[: max(1, len(rows) // 10)])
        return [r for i, r in enumerate(rows) if i not in held], [r for i, r in enumerate(rows) if i in held]

    def fit(self, task, train: Sequence, valid: Sequence = (), learner=None) -> Report:
        """Trains a task on rows, and gives it the best weights. Where there is a state, it goes on from there.

        Args:
            learner: what learns in the task's place, by another model over the same layers: it has `model`, `batch` and
                `loss` as a task has (`bert4x.tasks.distilled`).
        Raises: DataError without examples; RunError; KeyboardInterrupt after Ctrl-C, once the state is written.
        """
        examples = task.prepare(train)
        for reason, count in task.skipped.items():
            self.say(line("skipped {count} of {rows}: {reason}", count=count, rows=len(train), reason=reason))
        evaluate = None
        if len(valid):
            evaluate, task.best = (lambda: task.evaluate(valid)), task.best_of(valid)
        progress = self.train(task, examples, evaluate, lambda scores: self.keep(task), learner)
        self.restore(task)
        p = progress
        report = Report(p.scores, p.best_epoch, p.update, p.seconds, self.folder, self.metrics())
        self.summarize(task, report, len(examples), len(valid))
        return report

    def train(self, task, examples: Sequence, evaluate: Callable | None, keep: Callable, learner=None, **options):
        """The middle of `fit`, for what is no task with rows, scores and a pipeline: trains on examples; returns the
        progress. For the arguments see `bert4x.training.loop.Loop`.

        Raises: RunError; KeyboardInterrupt.
        """
        from bert4x.training.loop import Loop, Schedule

        args = self.args
        names = {field.name for field in dataclasses.fields(Schedule)}
        schedule = Schedule(
            **{name: getattr(args, name) for name in names if hasattr(args, name)},
            accumulation=args.gradient_accumulation,
        )
        if args.pack and learner:
            raise RunError("texts are packed for a task alone, without a learner in its place; leave out --pack")
        learner = learner or task
        if args.pack:
            learner = task.packed(examples, args.batch_size, args.seed)
            options["batches"] = learner.batches
            self.say(f"packed: {learner.batches.real:.1%} of a batch is no padding")
        trainer = self.trainer(task, learner.model, learner.loss)
        with Display(args, self.say, getattr(task, "remark", None)) as display:
            loop = Loop(
                self.folder, trainer, examples, learner.batch, schedule,
                evaluate=evaluate, keep=keep, best=task.best, longest=task.config.max_position,
                observe=lambda record: (self.observed(record), display.show(record)), **options,
            )  # fmt: skip
            if loop.resume():
                self.say(self.resumed(loop))
            display.start(loop.updates, loop.progress.update)
            return loop.run()

    def observed(self, record: dict) -> None:
        """Called with every record of the metrics, for who keeps them elsewhere than in the folder."""

    def resumed(self, loop) -> str:
        """What is said of a run that was found in the folder."""
        if loop.progress.finished:
            return line("{folder} holds this run, which has ended: its best weights are taken", folder=self.folder)
        return line("going on from update {update} of {updates}", update=loop.progress.update, updates=loop.updates)

    def keep(self, task) -> None:
        """Writes the weights, adapters added to them; and the adapters alone."""
        from bert4x.training.lora import save_lora

        task.save(self.folder)
        if self.args.lora:
            save_lora(task.backbone, self.folder / ADAPTERS)

    def restore(self, task) -> None:
        """Gives a task the weights that were kept."""
        task.restore(self.folder)

    def metrics(self) -> list[dict]:
        """The records of the run, from its beginning on."""
        from bert4x.training.loop import METRICS, read_metrics

        return read_metrics(self.folder / METRICS)

    def trainer(self, task, model, loss: Callable):
        """What takes the steps with a model over the task's layers, by a loss of its outputs: the task's optimizer, in
        the run's precision, with what the arguments add.
        """
        import keras

        from bert4x.training.trainer import Trainer

        args = self.args
        if args.lora:
            from bert4x.training.lora import add_lora

            add_lora(task.backbone, args.lora)
        adversary = None
        if args.adversarial:
            from bert4x.training.adversarial import read_adversary

            adversary = read_adversary(args.adversarial)
        chosen = {"head_learning_rate": args.head_learning_rate, "kind": args.optimizer, "lora_plus": args.lora_plus}
        plain = {"kind": "adamw"}  # of which a task with an optimizer of its own need not know
        chosen = {name: value for name, value in chosen.items() if value and plain.get(name) != value}
        optimizer = task.optimizer(args.learning_rate, **chosen)
        if args.precision == "mixed_float16":
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
        return Trainer(
            model, loss, optimizer, adversary=adversary, ema=args.ema, divergence=task.divergence,
            gathers=args.gradient_accumulation > 1, join=getattr(task, "join", None),
        )  # fmt: skip

    def summarize(self, task, report: Report, trained: int, scored: int) -> None:
        """Prints the scores; draws the curves; writes the card."""
        from bert4x import plots

        self.draw(CURVES, plots.curves, report.records, best=task.best)
        self.say(self.summary(report))
        use = f"bert4x.pipeline({task.name!r}, {str(self.folder)!r})"
        said = "weights, curves and metrics are in\n    {folder}\nto use them:\n    {use}"  # paths break no line
        self.say(line(said, folder=self.folder, use=use))
        with atomic_write(self.folder / CARD) as path:
            path.write_text(card(task, report, self.args, trained, scored), "utf-8")

    def summary(self, report: Report) -> str:
        """How it ended, in a line."""
        scores = ", ".join(f"{name} {value:.4g}" for name, value in report.scores.items())
        when = "" if report.best_epoch is None else ", after epoch {best_epoch:g}"
        said = "{updates} updates in {seconds:.0f} s. Best weights" + when + ": {scores}"
        return line(said, **vars(report) | {"scores": scores or line("not scored")})

    def draw(self, name: str, plot: Callable, *args, **options) -> None:
        """Draws one of bert4x' pictures into the folder, if matplotlib is there."""
        from bert4x.plots import MissingMatplotlibError

        try:
            plot(*args, path=self.folder / name, **options)
        except MissingMatplotlibError as error:
            self.say(f"no {name}: {error}")

    def updates_saved(self) -> int:
        """How far the saved state has come."""
        from safetensors import safe_open

        with safe_open(self.state, "numpy") as file:
            return json.loads(file.metadata()["progress"])["update"]

    def say(self, text: str) -> None:
        """Prints a line, unless machines read the output."""
        print(text, file=sys.stderr if self.args.json else sys.stdout, flush=True)


def distribution(devices: int, model: int, batch_size: int):
    """That of `--devices` and `--model-parallel`, over several hosts where Keras' variables in the environment name
    them. Raises: RunError where it cannot be.
    """
    import keras

    from bert4x.devices import check_backend, distribution

    check_backend()
    if os.environ.get("KERAS_DISTRIBUTION_JOB_ADDRESSES"):
        keras.distribution.initialize()
    copies, rest = divmod(devices, model)
    if rest:
        raise RunError(f"--devices {devices} cannot be divided into copies of --model-parallel {model}; a multiple can")
    if batch_size % copies:
        raise RunError(f"--batch-size {batch_size} cannot be divided over {copies} copies of the model; a multiple can")
    return distribution(copies, model)
