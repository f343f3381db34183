"""What a config says of texts longer than those in training: rotary frequencies, and scores that grow with log n."""

import math

import numpy as np


def frequencies(config, size, longest):
    """The angles of the pairs of a head for one position, and what queries and keys are multiplied by.

    linear: Chen et al. 2023 (arXiv 2306.15595); dynamic: NTK, as in transformers; yarn: Peng et al. 2023 (arXiv
    2309.00071), with the whole pairs between which it ramps, as in transformers.
    """
    theta, said = config.get("rope_theta", 10000.0), config.get("rope_scaling") or {"rope_type": "default"}
    pairs, factor = 2 * np.arange(size // 2) / size, said.get("factor", 1.0)
    trained = said.get("original_max_position_embeddings", config.get("max_position"))
    if said["rope_type"] == "linear":
        return theta**-pairs / factor, 1.0
    if said["rope_type"] == "dynamic":
        grown = factor * max(longest, trained) / trained - factor + 1
        return (theta * grown ** (size / (size - 2))) ** -pairs, 1.0
    if said["rope_type"] == "yarn":
        low, high = (size * math.log(trained / (b * 2 * math.pi)) / (2 * math.log(theta)) for b in (32, 1))
        low, high = max(math.floor(low), 0), min(math.ceil(high), size - 1)
        ramp = np.clip((np.arange(size // 2) - low) / (high - low), 0, 1)
        return theta**-pairs * (ramp / factor + 1 - ramp), 0.1 * math.log(factor) + 1
    return theta**-pairs, 1.0


def sharper(config, count):
    """log n / log m of Su (kexue.fm/archives/8823), n at least 16, or 1 without `log_n`."""
    trained = config.get("log_n", 512 if config.get("model") == "gau" else None)
    if trained is None:
        return 1.0
    grown = math.log(max(count, 16)) / math.log(trained)
    return max(grown, 1.0) if config.get("log_n_beyond") else grown
