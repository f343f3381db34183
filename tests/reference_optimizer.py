"""All extensions of optimizers, written once more in NumPy, and a model whose gradients NumPy can compute."""

import re

import numpy as np

VOCABULARY, WIDTH, CLASSES, BATCH = 7, 4, 3, 2
PATHS = ["Embedding-Token/embeddings", "Output-Dense/kernel", "Output-Dense/bias"]
RNG = np.random.default_rng(0)
START = [RNG.normal(0, 0.5, shape).astype("float32") for shape in ((VOCABULARY, WIDTH), (WIDTH, CLASSES), (CLASSES,))]
# Not all tokens are in a batch, one is in it twice, and token 5 never comes again.
TOKENS = np.array([[5, 1], [2, 2], [0, 3], [1, 4], [3, 3], [6, 0], [2, 1], [4, 4], [0, 0], [6, 2], [1, 3], [2, 0]])
TARGETS = RNG.normal(0, 1, (*TOKENS.shape, CLASSES)).astype("float32")


def gradients(weights, tokens, targets):
    """Of the mean over the batch of sum(targets * (table[tokens] @ kernel + bias))."""
    table, kernel, _ = weights
    rows = np.zeros_like(table)
    np.add.at(rows, tokens, targets @ kernel.T / len(tokens))
    return [rows, table[tokens].T @ targets / len(tokens), targets.mean(0)]


class Reference:
    """All extensions around SGD with momentum, or Adam, in double precision; arguments as those of the optimizer."""

    def __init__(self, base, rate, options):
        self.base, self.rate, self.options = base, rate, options
        self.weights = [w.astype("float64") for w in START]
        self.slow, self.ema = ([w.copy() for w in self.weights] for _ in range(2))
        self.m, self.v = ([np.zeros_like(w) for w in self.weights] for _ in range(2))
        self.sums, self.batches, self.t = [0.0] * 3, 0, 0

    def batch(self, found):
        steps = self.options.get("grad_accum_steps", 1)
        self.batches += 1
        self.sums = [total + g for total, g in zip(self.sums, found, strict=True)]
        if self.batches % steps == 0:
            rate = self.rate
            if "lr_schedule" in self.options:
                points = {0: 0} | self.options["lr_schedule"]
                rate *= np.interp(self.t, list(points), list(points.values()))
            self.t += 1
            for i, path in enumerate(PATHS):
                self.update(i, path, self.sums[i] / steps, rate)
            self.sums = [0.0] * 3

    def update(self, i, path, gradient, rate):
        options, w = self.options, self.weights[i]
        for pattern in options.get("gradient_operations", {}):
            if re.search(pattern, path):
                gradient = -2 * gradient if pattern == "kernel" else np.clip(gradient, -1, 1)
        change, m, v = self.step(i, gradient, rate)
        if "weight_decay_rate" in options and not path.endswith("bias"):
            change = change - rate * options["weight_decay_rate"] * w
        if path.startswith(tuple(options.get("include_in_lazy_optimization", []))):
            untouched = (gradient == 0).all(-1)
            change[untouched], m[untouched], v[untouched] = 0, self.m[i][untouched], self.v[i][untouched]
        self.m[i], self.v[i] = m, v
        if "exclude_from_layer_adaptation" in options and "Embedding" not in path and np.linalg.norm(change) > 0:
            change = change * rate * np.linalg.norm(w) / np.linalg.norm(change)
        for part, multiplier in options.get("paramwise_lr_schedule", {}).items():
            if part in path:
                change = change * multiplier
        w = w + change
        if "slow_step_size" in options and self.t % options["steps_per_slow_update"] == 0:
            self.slow[i] = w = self.slow[i] + options["slow_step_size"] * (w - self.slow[i])
        self.weights[i] = w
        momentum = min(options.get("ema_momentum", 0), (1 + self.t) / (10 + self.t))
        self.ema[i] = momentum * self.ema[i] + (1 - momentum) * w

    def step(self, i, gradient, rate):
        if self.base == "SGD":
            m = 0.9 * self.m[i] - rate * gradient
            return m.copy(), m, self.v[i].copy()
        m, v = 0.9 * self.m[i] + 0.1 * gradient, 0.999 * self.v[i] + 0.001 * gradient**2
        corrected = m / (1 - 0.9**self.t), v / (1 - 0.999**self.t)
        return -rate * corrected[0] / (np.sqrt(corrected[1]) + 1e-6), m, v
