"""How near values come to the true ones."""

import numpy as np


def regression_scores(found: np.ndarray, true: np.ndarray) -> dict[str, float]:
    """Pearson's correlation, 0 where one side does not vary, and the mean squared error.

    Shape: 2 x (N, labels)
    """
    found, true = (np.asarray(values, "float64").ravel() for values in (found, true))
    varies = found.std() > 0 and true.std() > 0
    return {
        "pearson": float(np.corrcoef(found, true)[0, 1]) if varies else 0.0,
        "mse": float(np.mean((found - true) ** 2)),
    }
