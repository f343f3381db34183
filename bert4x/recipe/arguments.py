"""The arguments of recipes, and how one is run from the command line."""

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from bert4x.chinese import line
from bert4x.errors import Bert4xError
from bert4x.training.command_line import option, parse

SMOKE = "--smoke: a small trial, to show that it runs; the scores and answers above say nothing about quality"
PRECISIONS = Literal["float32", "mixed_bfloat16", "mixed_float16"]


@dataclass
class FromNothing:
    """The arguments of all recipes that start from no pretrained model. A recipe's own class adds some."""

    smoke_values: ClassVar[dict[str, Any]] = {}

    backend: Literal["tensorflow", "jax", "torch"] | None = option(None, "of Keras; default: as Keras is configured")
    seed: int = option(0, "of weights, order and all that is drawn", least=0)
    smoke: bool = option(False, "a few examples and small sizes: does it run?")


@dataclass
class Arguments:
    """The arguments every recipe takes. A recipe's own class adds some, and changes defaults."""

    smoke_values: ClassVar[dict[str, Any]] = {"epochs": 2, "batch_size": 8, "seed": 0}

    model: str | None = option(None, "checkpoint to start from; default: the small model inside bert4x")
    train: Path | None = option(None, "file to train on; default: toy data")
    valid: Path | None = option(
        None, "file to score on after every epoch; default: a tenth of --train", only={"train": True}
    )
    output: Path = option(Path("runs/recipe"), "folder of the run")
    resume: Literal["never", "auto"] = option("never", "auto: go on with the run in the output folder, if there is one")
    epochs: int = option(3, "times that every example is seen", least=1)
    max_steps: int | None = option(None, "updates at most", least=1)
    batch_size: int = option(16, "rows of a batch", least=1)
    pack: bool = option(False, "several texts in a row, kept apart, so that little is padding: of short texts, faster")
    gradient_accumulation: int = option(1, "batches of one update", least=1)
    learning_rate: float = option(1e-4, "its peak", above=0)
    head_learning_rate: float | None = option(
        None, "peak of the layers that the task adds; default: that of all, for triples at least 3e-3", above=0
    )
    warmup: float = option(0.1, "share of training in which the learning rate rises", least=0, below=1)
    decay: Literal["linear", "cosine", "constant", "stable"] = option(
        "linear", "of the learning rate after its peak; stable: none in the first four fifths of training"
    )
    optimizer: Literal["adamw", "muon", "tiger"] = option(
        "adamw", "muon: of matrices, with AdamW for the rest; tiger: one slot, a relative learning rate of about 1e-3"
    )
    ema: float | None = option(
        None, "momentum of a moving average of the weights, scored and kept instead", above=0, below=1
    )
    adversarial: str | None = option(None, "fgm, pgd, gradient-penalty or vat, or with a size: fgm:0.5")
    lora: int | None = option(None, "train adapters of this rank, and leave the model as it is", least=1)
    lora_plus: float | None = option(
        None, "how many times as fast B of adapters learns as A, such as 16", only={"lora": True}, above=0
    )
    recompute: bool = option(False, "compute activations again in the backward pass: less memory, more time")
    score_every: int | None = option(None, "updates after which to score within an epoch too", least=1)
    patience: int | None = option(None, "scores without a better one before training stops", least=1)
    max_length: int = option(128, "tokens of a text", least=8)
    precision: PRECISIONS = option("float32", "of computation; weights stay float32")
    backend: Literal["tensorflow", "jax", "torch"] | None = option(None, "of Keras; default: as Keras is configured")
    devices: int = option(1, "to divide the work over (JAX only)", least=1)
    model_parallel: int = option(1, "of these devices, how many hold one copy of the model together", least=1)
    seed: int = option(0, "of weights, order and dropout", least=0)
    save_every: float = option(120, "seconds between two states that a killed run goes on from", least=0)
    json: bool = option(False, "print every record as a line of JSON, and nothing else")
    smoke: bool = option(False, "toy data and a few steps: does it run?")

    @property
    def command(self) -> str:
        """What started the run."""
        return shlex.join(["python", *sys.argv])


def run(main, cls: type[Arguments], description: str | None = None) -> None:
    """Runs a recipe from the command line; an error of bert4x is one line, not a traceback."""
    args = parse(cls, description)
    try:
        main(args)
        if args.smoke:
            stream = sys.stderr if getattr(args, "json", False) else sys.stdout
            print(line(SMOKE), file=stream)
    except Bert4xError as error:
        sys.exit(f"{type(error).__name__}: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
