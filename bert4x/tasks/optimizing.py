"""What trains a task: the optimizer, and which variables learn at which rate."""

import re

import keras

from bert4x.errors import ConfigError
from bert4x.optimizers import NOT_DECAYED, Muon, Tiger, TwoRateAdamW

LORA_B = re.compile(r"lora_(kernel|embeddings)_b$")


def optimizer_of(
    task, learning_rate: float, head_learning_rate: float | None, kind: str, lora_plus: float, **options
) -> keras.optimizers.Optimizer:
    """See `bert4x.tasks.task.Task.optimizer`. Raises: ConfigError"""
    if head_learning_rate and not task.head:
        raise ConfigError(f"head_learning_rate = {head_learning_rate}: {task.name} adds no layers to the model")
    options = {"weight_decay": 0.01, "global_clipnorm": 1.0} | options
    multiplier = (head_learning_rate or max(learning_rate, task.least_head_rate)) / learning_rate
    rates = {v.path: lora_plus for v in task.backbone.trainable_variables if LORA_B.search(v.path)}
    if lora_plus != 1 and not rates:
        raise ConfigError(f"lora_plus = {lora_plus}: the model has no adapters; put them on it first (add_lora)")
    heads = dict.fromkeys(task.head, multiplier)
    if kind == "adamw":
        optimizer = TwoRateAdamW(learning_rate, faster=task.head, multiplier=multiplier, rates=rates, **options)
    elif kind == "muon":
        c, by_adamw = task.config, [f"^{re.escape(path)}$" for path in sorted(task.head)]
        width = {"head_size": c.attention_head_size} if c.attention_head_size == c.attention_key_size else {}
        sizes = {"num_heads": c.num_attention_heads} | width
        optimizer = Muon(learning_rate, exclude_layers=by_adamw, rates=rates | heads, **sizes, **options)
    elif kind == "tiger":
        optimizer = Tiger(learning_rate, rates=rates | heads, **options)
    else:
        raise ConfigError(f"optimizer {kind!r}; expected adamw, muon or tiger")
    optimizer.exclude_from_weight_decay(var_names=NOT_DECAYED)
    return optimizer
