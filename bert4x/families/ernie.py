"""ERNIE: BERT, from version 3.0 on with a vector of the task (Sun et al. 2019, arXiv 1904.09223; 2021, 2107.02137)."""

from dataclasses import dataclass
from typing import ClassVar

from bert4x import layers as L
from bert4x.checkpoints.spec import Rule
from bert4x.config import TransformerConfig
from bert4x.errors import InputError
from bert4x.families import bert, register_family
from bert4x.families.layouts import paddle
from bert4x.families.parts import KEYS, hf_style

TASK = "Embedding-Task/embeddings"
TASK_RULE = Rule(TASK, "ernie.embeddings.task_type_embeddings.weight")


@dataclass(frozen=True, kw_only=True)
class ErnieConfig(TransformerConfig):
    """With the number of tasks that have vectors, where any have."""

    use_task_id: bool = False
    task_vocab_size: int = 3

    def __post_init__(self):
        super().__post_init__()
        self.check_integer("task_vocab_size", 1)


@register_family
class Ernie(bert.Bert):
    """ERNIE 1.0 to 3.0. All tokens get the vector of one task, that of number `task_id`: 0, as in transformers.

    Outputs: those of BERT.
    """

    model_name = "ernie"
    misnamed = ("bert",)  # in conversions of UIE
    config_class = ErnieConfig
    options: ClassVar = bert.Bert.options | {"task_id": 0}
    sizes: ClassVar = {"T": lambda c: c.task_vocab_size}
    absent: ClassVar = bert.Bert.absent | {TASK: lambda c: not c.use_task_id}
    variables = (*bert.Bert.variables[:3], (TASK, "TE", None), *bert.Bert.variables[3:])
    layer_classes: ClassVar = (("Embedding-Task", "RowEmbedding"), *bert.Bert.layer_classes)
    tables = (
        bert.HF.of("ernie", names=("bert.", "ernie."), classes=("Bert", "Ernie"), rules=(TASK_RULE,)),
        paddle.ERNIE,
    )
    styles: ClassVar = {
        "hf": hf_style("ernie", "ErnieForPreTraining", KEYS | {"task_vocab_size": ("task_type_vocab_size",)})
    }
    styles["paddle"] = paddle.style(styles["hf"])

    @classmethod
    def config_by_tensors(cls, config, table, held):
        """With task ids where there are vectors of tasks; a conversion of UIE may not say so."""
        size = held["Embedding-Task"].shape[:1] if held.get("Embedding-Task") is not None else ()
        return config.replace(use_task_id=True, task_vocab_size=size[0]) if size else config

    def position_embedding(self, x, inputs, index=0, cached=False):
        x, c = super().position_embedding(x, inputs, index, cached), self.config
        if not c.use_task_id:
            return x
        if not 0 <= self.task_id < c.task_vocab_size:
            raise InputError(f"task_id = {self.task_id}; expected a number from 0 to {c.task_vocab_size - 1}")
        sizes = {"rows": c.task_vocab_size, "row": self.task_id, "stddev": c.initializer_range}
        return self.layer(L.RowEmbedding, "Embedding-Task", **sizes)(x)
