"""The models that are served: what is in a folder, what it can do, and the thread that owns it."""

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bert4x.checkpoints.task_file import FILE
from bert4x.errors import CheckpointNotFoundError, ConfigError, InputError, TokenizerError, nearest
from bert4x.runtimes.exported import is_export, open_export
from bert4x.serving.abilities import ATTENTION, SCORES, TASKS, VECTORS, WRITING, Ability, Embedding, Fillings, Reranking
from bert4x.serving.batching import Worker
from bert4x.serving.generation import Generation
from bert4x.serving.limits import Limits
from bert4x.serving.problems import Problem
from bert4x.serving.writing import Decoder

EMBEDDED = "bert4x-small"  # the name of the model inside the package
NAME = re.compile(r"[\w.\-]+(/[\w.\-]+)?")


@dataclass(eq=False)
class Served:
    """A model, the thread that owns it, and its abilities by name."""

    name: str
    worker: Worker
    tokenizer: Any
    abilities: dict[str, Any]
    about: dict[str, Any] = field(default_factory=dict)
    created: int = field(default_factory=lambda: int(time.time()))

    def describe(self) -> dict[str, Any]:
        """What it is and can do, for clients."""
        writing = self.abilities.get(WRITING)
        more: dict[str, Any] = {"chat_template": writing.has_template} if writing else {}
        if VECTORS in self.abilities:
            more["dimensions"] = self.abilities[VECTORS].task.size
        if ATTENTION in self.abilities:
            attentions = self.abilities[ATTENTION].task
            more |= {"layers": attentions.layers, "heads": attentions.heads}
        for name in ("entities", "classes"):
            if name in self.abilities:
                more["labels"] = list(self.abilities[name].task.labels)
        return {"model": self.name, "abilities": list(self.abilities), **self.about, **more}


class Models:
    """All models of a server. Raises: InputError for two of one name."""

    def __init__(self, served: Sequence[Served]):
        self.served: dict[str, Served] = {}
        for one in served:
            if one.name in self.served:
                raise InputError(f"two models are called {one.name!r}; name them: NAME=FOLDER")
            self.served[one.name] = one

    def find(self, name: str | None, ability: str | Sequence[str]) -> tuple[Served, Any]:
        """The model of a name, by default the first that can do what is asked, and its ability.

        Raises: Problem where there is none.
        """
        wanted = (ability,) if isinstance(ability, str) else tuple(ability)
        if name is not None and name not in self.served:
            raise Problem(404, f"no model {name!r:.80}; {nearest(name, self.served)}", "model_not_found", "model")
        for one in self.served.values() if name is None else [self.served[name]]:
            for kind in wanted:
                if kind in one.abilities:
                    return one, one.abilities[kind]
        have = "; ".join(f"{one.name}: {', '.join(one.abilities)}" for one in self.served.values())
        who = "no model here can" if name is None else f"the model {name!r} cannot"
        status = 404 if name is None else 422
        raise Problem(status, f"{who} do {' or '.join(wanted)}. What there is: {have}", "not_able", "model")

    def alive(self) -> bool:
        """Whether all threads run."""
        return all(one.worker.is_alive() for one in self.served.values())

    def start(self) -> None:
        """Starts the threads."""
        for one in self.served.values():
            one.worker.start()

    def stop(self) -> None:
        """Ends the threads."""
        for one in self.served.values():
            one.worker.stop()
        for one in self.served.values():
            one.worker.join(10)


def open_models(
    sources: Sequence[str], limits: Limits, application: str | None = None, runtime: str | None = None, **options
) -> Models:
    """The models of folders or names, each `SOURCE` or `NAME=SOURCE`; without any, the model inside the package.

    Args:
        application: of language models, "lm" or "unilm".
        runtime: what all of them are to be run by: "keras", or "onnx" ... of folders that `bert4x.export` wrote.
        options: of `bert4x.load`, such as `dtype`.
    Raises: the errors of `load`; InputError for a model of another runtime.
    """
    served = []
    for source in sources or [None]:
        name, source = named(source)
        abilities, tokenizer, about = opened(source, application, options)
        if runtime not in (None, about["runtime"]):
            other = f"what this writes: bert4x export {source or 'MODEL'} FOLDER --to {runtime}"
            other = "the folder that it was exported from" if runtime == "keras" else other
            raise InputError(f"{name} is run by {about['runtime']}; for --runtime {runtime} give {other}")
        writing = abilities.get(WRITING)
        worker = Worker(name, limits, Decoder(lambda w=writing: w.engine, limits.rows) if writing else None)
        served.append(Served(name, worker, tokenizer, abilities, about))
    return Models(served)


def named(source: str | None) -> tuple[str, str | None]:
    """The name of a model, and where it is. Raises: InputError for a name that no address can hold."""
    if source is None:
        return EMBEDDED, None
    name, given, where = source.partition("=")
    if not given or Path(source).expanduser().exists():
        name, where = Path(source).expanduser().resolve().name if Path(source).exists() else source, source
        name = re.sub(r"[^\w.\-/]", "-", name.partition("://")[2] or name)
    if not NAME.fullmatch(name):
        raise InputError(f"{name!r} cannot be the name of a model; expected letters, digits, . _ -: NAME={where}")
    return name, where


def opened(source: str | None, application: str | None, options: dict):
    """The abilities of what is in a folder, its tokenizer, and what is known of it."""
    from bert4x.hub.names import local
    from bert4x.tasks.heads import read_task

    if source is not None:
        source = local(source)
        if is_export(source) and not (Path(source).expanduser() / FILE).is_file():
            return exported(source, application, options)
        try:
            task, _ = read_task(source)
        except CheckpointNotFoundError as error:
            if not Path(source).expanduser().exists():
                raise
            if Path(source).expanduser().is_dir() and not any(Path(source).expanduser().iterdir()):
                raise error
            task = None
        if task is not None:
            return trained(task, source, options)
    return pretrained(source, application, options)


def exported(source, application: str | None, options: dict):
    """The abilities of the export of a checkpoint that was only pretrained: what it was exported as.

    Raises: TokenizerError without a vocabulary; ConfigError for one that can do nothing.
    """
    model = open_export(source, application, **options)
    if model.tokenizer is None:
        raise TokenizerError(f"{source} has no vocabulary; export a model with its tokenizer beside it")
    about = {"family": model.config.model, "max_tokens": model.config.max_position, "runtime": model.to}
    if "decoder" in model.graphs:
        return {WRITING: Generation(model)}, model.tokenizer, about | {"application": model.application}
    if model.application == "encoder" and "logits" in model.outputs:
        from bert4x.tasks.fill_mask import FillMask

        return {"fill-mask": Fillings("fill-mask", FillMask(model), about["max_tokens"])}, model.tokenizer, about
    raise ConfigError(f"{source} gives {', '.join(model.outputs)}, which is not served; export it as mlm, lm or unilm")


def trained(name: str, source, options: dict):
    """The abilities of the folder of a trained task."""
    from bert4x.tasks.pipelines import task_class

    task = task_class(name).load(source, **options)
    about = {"task": name, "family": task.config.model, "max_tokens": task.maxlen}
    about["runtime"] = task.backbone.to if task.exported else "keras"
    if name == "sentence-embedding":
        return {VECTORS: Embedding(task)}, task.tokenizer, about | {"prompts": list(task.prompts)}
    ours = next((short for short, names in TASKS.items() if name in names), name)
    abilities: dict[str, Any] = {ours: Ability(ours, task, task.maxlen if cuts(task) else None)}
    if name == "text-classification" and len(task.labels) <= 2:
        from bert4x.tasks.reranker import judge_of

        abilities[SCORES] = Reranking(judge_of(task, source))
    return abilities, task.tokenizer, about


def cuts(task) -> bool:
    """Whether a task reads only the beginning of a long text."""
    return getattr(task, "long", None) == "first" or task.name == "seq2seq"


def pretrained(source, application: str | None, options: dict):
    """The abilities of a checkpoint that was only pretrained; its models share their layers.

    Raises: TokenizerError without a vocabulary; ConfigError for one that can do nothing.
    """
    from bert4x.models.build import load

    model = load(source, **head_options(source, application), **options)
    if model.tokenizer is None:
        raise TokenizerError(f"{source} has no vocabulary beside its weights; put its tokenizer there")
    builder = model.builder
    about = {"family": builder.config.model, "max_tokens": builder.config.max_position, "runtime": "keras"}
    abilities: dict[str, Any] = {}

    def other(**changes):
        """A model over the same layers."""
        one = builder.over_the_same_layers("encoder", **changes).build().model
        one.tokenizer = model.tokenizer
        return one

    reads_both_ways = "encoder" in builder.applications and not builder.causal
    if reads_both_ways and builder.with_mlm and model.tokenizer.mask_id is not None:
        from bert4x.tasks.fill_mask import FillMask

        abilities["fill-mask"] = Fillings("fill-mask", FillMask(other(with_mlm="linear")), about["max_tokens"])
    if builder.with_mlm and builder.application != "encoder":
        abilities[WRITING] = Generation(model)
        about["application"] = builder.application
    if reads_both_ways:
        from bert4x.serving.attention import AttentionWeights
        from bert4x.tasks.sentence_embedding import SentenceEmbedding

        abilities[VECTORS] = Embedding(SentenceEmbedding(other(with_mlm=False)))
        with_weights = builder.over_the_same_layers("encoder", with_mlm=False, return_attentions=True)
        abilities[ATTENTION] = AttentionWeights(with_weights, model.tokenizer)
        about["note"] = "it was not trained for sentence vectors: the mean of its hidden states is given"
    if not abilities:
        raise ConfigError(f"{source} can do nothing that is served: it has no head, and reads from left to right")
    return abilities, model.tokenizer, about


def head_options(source, application: str | None) -> dict[str, Any]:
    """How a checkpoint is loaded: as a language model, where it has the head of one."""
    from bert4x.checkpoints.files import default_model
    from bert4x.checkpoints.opening import open_checkpoint
    from bert4x.families import family_of

    checkpoint = open_checkpoint(default_model() if source is None else source)
    cls = family_of(checkpoint.config.builder)
    if application is not None:
        return {"application": application}
    if "seq2seq" in cls.applications or cls.causal:
        return {}
    if "MLM-Bias/bias" not in checkpoint.entries:
        return {"application": "encoder"}
    return {"application": "lm"} if "lm" in cls.applications else {"application": "encoder", "with_mlm": True}
