"""Pretraining of a BERT or ALBERT under several objectives: one graph, a training step, checkpoints to resume from."""

import json
import os
import time
from pathlib import Path

import keras
import numpy as np
from keras import ops
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file

from bert4x import layers as L
from bert4x import masks
from bert4x.checkpoints.tensors import atomic_write
from bert4x.config import TransformerConfig
from bert4x.errors import CheckpointNotFoundError, ConfigError, CorruptFileError
from bert4x.families import family_of
from bert4x.families.bert import Bert
from bert4x.optimizers import NOT_DECAYED, Muon, warmup_decay
from bert4x.training.interruptions import Signals
from bert4x.training.loop import METRICS, read_metrics
from bert4x.training.mixture import Mixture
from bert4x.training.objectives import Mix, Specials, make_batch


@keras.saving.register_keras_serializable("bert4x")
class RankVisibility(L.Layer):
    """The attention mask of ranks that come as an input, so that every row can have an objective of its own.

    Shape: (B, T) int32 -> (B, 1, T, T) bool
    """

    def call(self, rank):
        return masks.visible(rank, rank)

    def compute_output_spec(self, rank):
        return self.symbolic((rank.shape[0], 1, rank.shape[1], rank.shape[1]), "bool")


@keras.saving.register_keras_serializable("bert4x")
class GatherPositions(L.Layer):
    """Hidden states at positions of the flattened batch: the vocabulary is projected onto only where it is predicted.

    Shape: (B, T, D), (N,) int32 -> (N, D)
    """

    def call(self, h, positions):
        return ops.take(ops.reshape(h, (-1, h.shape[-1])), positions, axis=0)

    def compute_mask(self, h, mask=None):
        return None

    def compute_output_spec(self, h, positions):
        return self.symbolic((positions.shape[0], h.shape[-1]))


class PretrainingInputs:
    """Mix-in for BERT and its kin: visibility comes as `Input-Rank`, and the language-model head runs at
    `Input-Positions` only.
    """

    def new_inputs(self):
        self.rank = keras.Input((None,), dtype="int32", name="Input-Rank")
        self.masked_positions = keras.Input((), dtype="int32", name="Input-Positions")
        return super().new_inputs() | {"rank": self.rank, "positions": self.masked_positions}

    def visibility(self, x, inputs, application, window=None, of_partner=False):
        return self.layer(RankVisibility, "Attention-Rank-Mask")(self.rank)

    def heads(self, h, last=False):
        return super().heads(self.layer(GatherPositions, "Gather-Positions")(h, self.masked_positions))


def pretraining_class(name: str) -> type:
    """The architecture of that name, with these inputs. Raises: ConfigError, UnknownArchitectureError"""
    cls = family_of(name)
    if not issubclass(cls, Bert):
        raise ConfigError(f"cannot pretrain {name!r} on masked tokens; expected a BERT or an ALBERT")
    # It has the family's own weights and no others, so that what is saved of it is one of the family.
    return type(f"Pretraining{cls.__name__}", (PretrainingInputs, cls), {"model_name": cls.model_name})


class Pretrainer:
    """A model in training on a mixture of rows.

    Every batch is a function of (seed, step), so a run that was interrupted and resumed equals one that was not.

    Args:
        specials: the ids of the special tokens.
        start: a checkpoint whose weights to go on from, of the same sizes; by default they are random.
        kind: of the optimizer: "adamw", or "muon", which learns matrices.
        jit: compile with XLA: Keras' `jit_compile`.
    Raises: the errors of `bert4x.load`; ConfigError for what is no kind of BERT.
    """

    def __init__(
        self,
        config: TransformerConfig,
        mixture: Mixture,
        specials: Specials,
        mix: Mix | None = None,
        *,
        peak: float = 1e-3,
        weight_decay: float = 0.01,
        seed: int = 0,
        dtype: str | None = None,
        start: str | os.PathLike | None = None,
        kind: str = "adamw",
        jit: bool | str = "auto",
    ):
        keras.utils.set_random_seed(seed)
        self.mixture, self.specials, self.mix, self.peak, self.seed = mixture, specials, mix or Mix(), peak, seed
        # At about an epoch and a few million parameters nothing overfits: dropout would only slow learning.
        plain = config.replace(dropout_rate=0.0, attention_dropout_rate=0.0)
        self.model = pretraining_class(config.model)(plain, with_mlm="linear", dtype=dtype).build().model
        self.model.config = config
        if start is not None:
            self.model.builder.load_weights_from_checkpoint(start)
        else:  # Starting from the tokens' frequencies spares it the long way there in steps of the learning rate.
            counts = mixture.token_counts(config.vocab_size) + 1
            self.model.get_layer("MLM-Bias").bias.assign(np.log(counts / counts.sum()))
        common = {"weight_decay": weight_decay, "epsilon": 1e-8, "global_clipnorm": 1.0}
        if kind == "muon":
            self.optimizer = Muon(peak, num_heads=config.num_attention_heads, adam_beta_2=0.98, **common)
        elif kind == "adamw":
            self.optimizer = keras.optimizers.AdamW(peak, beta_2=0.98, **common)
        else:
            raise ConfigError(f"optimizer {kind!r}; expected adamw or muon")
        self.optimizer.exclude_from_weight_decay(var_names=NOT_DECAYED)
        if dtype == "mixed_float16":
            self.optimizer = keras.optimizers.LossScaleOptimizer(self.optimizer)
        self.optimizer.build(self.model.trainable_variables)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="mean_with_sample_weight")
        self.model.compile(optimizer=self.optimizer, loss=loss, jit_compile=jit)
        self.step, self.interrupted = 0, False
        self.seconds = 0.0  # of training so far, over all sittings

    def batch(self, step: int) -> dict[str, np.ndarray]:
        """The arrays of a step; see `make_batch`."""
        length, rows = self.mixture.rows(step)
        return make_batch(rows, length, self.mix, self.specials, np.random.default_rng([self.seed, step]))

    def rate(self, progress: float) -> float:
        """The learning rate at `progress` (0 to 1): up within the first twenty-fifth, then down to zero."""
        return self.peak * warmup_decay(progress, 1, 0.04)

    def train_step(self, progress: float) -> float:
        """Takes one step at the learning rate of `progress` (0 to 1), and returns its loss."""
        batch = self.batch(self.step)
        self.optimizer.learning_rate.assign(self.rate(progress))
        inputs = [batch[name] for name in ("token_ids", "segment_ids", "rank", "positions")]
        loss = self.model.train_on_batch(inputs, batch["targets"], sample_weight=batch["weights"])
        self.step += 1
        return float(loss)

    def run(self, folder: str | os.PathLike, minutes: float = 90, max_steps: int | None = None) -> list[dict]:
        """Trains until `max_steps` steps are taken, or else for `minutes`, over all sittings. Saves every 3 minutes,
        when interrupted and at the end. Returns the records of metrics.jsonl.

        Raises: KeyboardInterrupt after Ctrl-C or SIGTERM, once the state is written.
        """
        metrics = Path(folder) / METRICS
        records = [record for record in read_metrics(metrics) if record["update"] <= self.step]
        began = saved = time.monotonic()
        before, first = self.seconds, self.step

        def save():
            self.save(folder)
            with atomic_write(metrics) as path:
                path.write_text("".join(json.dumps(record) + "\n" for record in records), "utf-8")

        with Signals(self):
            while (progress := self.step / max_steps if max_steps else self.seconds / (60 * minutes)) < 1:
                rate, loss = self.rate(progress), self.train_step(progress)
                records.append({"update": self.step, "loss": loss, "learning_rate": rate})
                now = time.monotonic()
                self.seconds = before + now - began
                if self.step % 50 == 0:
                    speed = (self.step - first) * self.mixture.batch_tokens / (now - began)
                    mean = np.mean([record["loss"] for record in records[-50:]])
                    print(f"step {self.step}, {progress:.1%}: loss {mean:.4f}, {speed:.0f} tokens/s", flush=True)
                if self.interrupted or now - saved > 180:
                    save()
                    saved = now
                if self.interrupted:
                    raise KeyboardInterrupt
        save()
        return records

    def save(self, folder: str | os.PathLike) -> None:
        """Writes weights, optimizer slots and the position in the data, atomically, as one file."""
        tensors = {f"model/{v.path}": ops.convert_to_numpy(v.value) for v in self.model.variables}
        for i, variable in enumerate(self.optimizer.variables):
            tensors[f"optimizer/{i}"] = np.asarray(ops.convert_to_numpy(variable.value))
        state = {"step": self.step, "seconds": self.seconds, "config": self.model.config.to_dict()}
        with atomic_write(Path(folder) / "training.safetensors") as path:
            save_file(tensors, path, metadata={"state": json.dumps(state)})

    def resume(self, folder: str | os.PathLike) -> None:
        """Continues from what `save` wrote.

        Raises: CheckpointNotFoundError when there is nothing to resume from, ConfigError when it was another model,
            CorruptFileError.
        """
        path = Path(folder) / "training.safetensors"
        if not path.exists():
            raise CheckpointNotFoundError(f"nothing to resume from: {path} does not exist; start without resuming")
        try:
            with safe_open(path, "numpy") as file:
                state = json.loads(file.metadata()["state"])
            tensors = load_file(path)
            step, seconds, theirs = int(state["step"]), float(state["seconds"]), dict(state["config"])
        except (SafetensorError, KeyError, TypeError, ValueError, RecursionError) as error:
            raise CorruptFileError(f"{path} holds no state of training: {error}; start without resuming") from error
        ours = self.model.config.to_dict()
        if different := sorted(name for name in ours if name != "extra" and ours[name] != theirs.get(name)):
            raise ConfigError(f"{path} holds a model with other {', '.join(different)}; resume with the sizes it had")
        values = {f"model/{variable.path}": variable for variable in self.model.variables}
        values |= {f"optimizer/{i}": variable for i, variable in enumerate(self.optimizer.variables)}
        if missing := sorted(values.keys() - tensors.keys()):
            raise CorruptFileError(f"{path} lacks {', '.join(missing[:4])}; start without resuming")
        for name, variable in values.items():
            variable.assign(tensors[name])
        self.step, self.seconds = step, seconds
