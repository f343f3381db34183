"""Learning rates that fall from the head down to the embeddings."""

import re

from bert4x.errors import ConfigError

BLOCK = re.compile(r"Transformer-(?:(\d+)-)?(?:MultiHead|FeedForward)")


def layerwise_schedule(model, decay: float = 0.95) -> dict[str, float]:
    """`paramwise_lr_schedule` for `extend_with_parameter_wise_lr`: each layer's rate is `decay` times that above it.

    Of n Transformer layers the i-th from below, from 0, gets decay^(n - i), the embeddings decay^(n + 1); poolers and
    heads keep 1. The one block that shared ALBERT applies n times counts as one layer. Source: discriminative
    fine-tuning of ULMFiT (Howard and Ruder 2018, arXiv:1801.06146), with one decay for all layers as in ELECTRA
    (Clark et al. 2020, arXiv:2003.10555).

    Args:
        model: any Keras model around a BERT, ALBERT or GPT2 of bert4x; its variables' paths tell its layers.
    Raises: ConfigError when it has no Transformer layer, or for a decay outside (0, 1].
    """
    if not 0 < decay <= 1:
        raise ConfigError(f"decay {decay!r} from layer to layer; expected a number above 0, at most 1")
    blocks = {found[1] for variable in model.variables if (found := BLOCK.search(variable.path))}
    if not blocks:
        raise ConfigError(
            "no variable of the model is named Transformer-...; expected a BERT, ALBERT or GPT2 of bert4x"
        )
    if blocks == {None}:
        layers = {"Transformer-MultiHead": decay, "Transformer-FeedForward": decay}
        return {"Embedding-": decay**2} | layers
    count = 1 + max(int(block) for block in blocks if block is not None)
    return {"Embedding-": decay ** (count + 1)} | {f"Transformer-{i}-": decay ** (count - i) for i in range(count)}
