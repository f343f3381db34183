"""How near values come to the true ones."""

import numpy as np

from bert4x.metrics.vectors import correlation


def regression_scores(found: np.ndarray, true: np.ndarray) -> dict[str, float]:
    """Pearson's correlation, 0 where one side does not vary, and the mean squared error.

    Shape: 2 x (N, labels)
    """
    found, true = (np.asarray(values, "float64").ravel() for values in (found, true))
    return {"pearson": correlation(found, true), "mse": float(np.mean((found - true) ** 2))}
