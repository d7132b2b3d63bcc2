"""Exports classifiers of scikit-learn by skl2onnx, trained briefly on its own digits: rows of 64 pixels from 0 to 16.

    python3.11 -m venv sk && sk/bin/pip install scikit-learn skl2onnx
    sk/bin/python -m benchmarks.zoo.sklearn_export FOLDER

See benchmarks/zoo/shelf.py for what is written. scikit-learn has no gradients, so they are central differences of the
probabilities in float64, at digits of which the classifier is unsure: where a probability is 1 - 1e-9, its gradient is
lost in the rounding of float32, and that of a linear discriminant, which is sure to 1e-12, even in the differences.
"""

import functools
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from skl2onnx import to_onnx
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from benchmarks.zoo import shelf

SIDE, WHITE = 8, 16.0
STEP = 1e-4  # of the central differences
UNSURE = 50  # of all digits, those of which the classifier is least sure
INPUT = {"input": {"shape": [1, SIDE, SIDE], "range": [0, WHITE]}}
SPECIAL = {"LinearClassifier", "Scaler", "Normalizer"}  # operators that skl2onnx can also write as ordinary ones


def network(*hidden: int, **options: Any) -> MLPClassifier:
    """Return a multilayer perceptron, to be trained for a short time."""
    return MLPClassifier(hidden, max_iter=20, random_state=0, **options)


FAMILIES: dict[str, Callable[[], Any]] = {
    "mlp": lambda: network(32),
    "mlp-tanh": lambda: network(32, 16, activation="tanh"),
    "mlp-logistic": lambda: network(32, activation="logistic"),
    "mlp-binary": lambda: network(16),
    "mlp-standardised": lambda: make_pipeline(StandardScaler(), network(32)),
    "mlp-components": lambda: make_pipeline(PCA(16, random_state=0), network(32)),
    "logistic": lambda: LogisticRegression(max_iter=50, C=0.01),
    "logistic-binary": lambda: LogisticRegression(max_iter=50, C=0.01),
    "logistic-scaled": lambda: make_pipeline(MinMaxScaler(), LogisticRegression()),
    "discriminant": LinearDiscriminantAnalysis,
    "forest": lambda: RandomForestClassifier(5, random_state=0),
}
WAYS: dict[str, Mapping[str, Any]] = {
    "default": {},
    "arrays": {"options": {"zipmap": False}},
    "plain": {"options": {"zipmap": False}, "black_op": SPECIAL},
    "plain-12": {"options": {"zipmap": False}, "black_op": SPECIAL, "target_opset": {"": 12, "ai.onnx.ml": 1}},
}


def gradient(model: Any, rows: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the gradient of the sum of the weighted probabilities at the rows, by central differences."""
    steps = STEP * np.eye(rows.shape[1])[:, None]
    above, below = (model.predict_proba((rows + sign * steps).reshape(-1, rows.shape[1])) for sign in (1, -1))
    change = ((above - below).reshape(len(steps), *weights.shape) * weights).sum(2) / (2 * STEP)
    return np.ascontiguousarray(change.T)


@functools.cache
def trained(name: str) -> Any:
    """Return the classifier, trained on digits or, if it is binary, on whether they are greater than 4."""
    rows, labels = load_digits(return_X_y=True)
    return FAMILIES[name]().fit(rows, (labels > 4).astype(int) if name.endswith("-binary") else labels)


def write(family: str, way: str, path: Path) -> None:
    """Export one classifier, and keep what it says beside the file."""
    model = trained(family)
    rows, _ = load_digits(return_X_y=True)
    unsure = rows[np.argsort(model.predict_proba(rows).max(1))[:UNSURE]]
    path.write_bytes(to_onnx(model, rows[:1].astype(np.float32), **WAYS[way]).SerializeToString())
    found = {}
    for count, digits in {1: unsure, 2: unsure, 5: rows}.items():
        draws = np.random.default_rng(count)
        some = digits[draws.choice(len(digits), count)] + draws.uniform(0, 0.1, (count, SIDE**2))
        some = some.astype(np.float32).astype(np.float64)
        arrays = {"images": some.reshape(count, 1, SIDE, SIDE), "probabilities": model.predict_proba(some)}
        if digits is unsure:
            weights = draws.standard_normal(arrays["probabilities"].shape)
            arrays |= {"weights": weights, "gradient": gradient(model, some, weights).reshape(count, 1, SIDE, SIDE)}
        found |= {f"{key}{count}": array.astype(np.float32) for key, array in arrays.items()}
    np.savez(shelf.beside(path, ".npz"), **found)
    output = "output_probability" if way == "default" else "probabilities"
    shelf.beside(path, ".json").write_text(json.dumps(INPUT | {"output": output}))


if __name__ == "__main__":
    shelf.serve(__doc__, {name: tuple(WAYS) for name in FAMILIES}, write)
