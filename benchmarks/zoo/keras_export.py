"""Exports image classifiers of Keras, with TensorFlow or with PyTorch behind it; nothing is downloaded.

    python3.11 -m venv tf && tf/bin/pip install keras tensorflow-cpu tf2onnx onnx
    tf/bin/python -m benchmarks.zoo.keras_export FOLDER
    python3.11 -m venv pt && pt/bin/pip install keras torch==2.13.0 onnx onnxscript
    KERAS_BACKEND=torch pt/bin/python -m benchmarks.zoo.keras_export FOLDER

See benchmarks/zoo/shelf.py for what is written.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import keras
import numpy as np

from benchmarks.zoo import shelf
from benchmarks.zoo.keras_nets import FAMILIES, Family, randomised

BACKEND = keras.backend.backend()
BATCHES = (1, 2, 5)
LARGE = 160  # images of this size or more are compared two at a time
DEVIATIONS = 2.0  # images without a range: uniform from -2 to 2


def specification(family: Family, batch: int | None, name: str = "images") -> Any:
    """Return the signature of the input that TensorFlow's exporters take."""
    import tensorflow

    (images,) = built_inputs(family)
    return tensorflow.TensorSpec((batch, *family.shape), images.dtype, name=name)


def built_inputs(family: Family) -> list[Any]:
    """Return the inputs of the net of a family."""
    return family.build(family.shape).inputs


def keras_export(model: keras.Model, family: Family, path: Path, batch: int | None = None) -> None:
    """`model.export`, of both backends."""
    signature = [keras.InputSpec(shape=(batch, *family.shape), dtype=model.inputs[0].dtype, name="images")]
    model.export(path, format="onnx", verbose=False, input_signature=signature)


def saved_model(model: keras.Model, family: Family, path: Path) -> None:
    """A SavedModel, converted by the command line of tf2onnx."""
    from tf2onnx import convert

    with tempfile.TemporaryDirectory() as folder:
        model.export(folder, verbose=False)
        arguments = ["tf2onnx.convert", "--saved-model", folder, "--output", str(path)]
        with mock.patch.object(sys, "argv", arguments):
            convert.main()


def from_keras(model: keras.Model, family: Family, path: Path, **options: Any) -> None:
    """`tf2onnx.convert.from_keras` with its options."""
    from tf2onnx import convert

    batch = options.pop("batch", None)
    convert.from_keras(model, [specification(family, batch)], output_path=str(path), **options)


def torch_unfolded(model: keras.Model, family: Family, path: Path) -> None:
    """PyTorch's exporter of a net of Keras, without its folding of constants; Keras spells BatchNormalization out."""
    import torch

    dtype = getattr(torch, model.inputs[0].dtype)
    torch.onnx.export(
        model.eval(),
        (torch.ones(2, *family.shape, dtype=dtype),),
        path,
        dynamo=False,
        training=torch.onnx.TrainingMode.PRESERVE,
        do_constant_folding=False,
        input_names=["images"],
        output_names=["logits"],
        dynamic_axes={"images": {0: "batch"}, "logits": {0: "batch"}},
    )


Way = Callable[[keras.Model, Family, Path], None]
WAYS: dict[str, Way] = {
    "keras": keras_export,
    "keras-1": lambda model, family, path: keras_export(model, family, path, 1),
    "saved-model": saved_model,
    "tf2onnx-13": lambda model, family, path: from_keras(model, family, path, opset=13),
    "tf2onnx-nchw": lambda model, family, path: from_keras(model, family, path, opset=18, inputs_as_nchw=["images"]),
}
FEW = ("keras", "tf2onnx-nchw")
WAYS_OF_TORCH: dict[str, Way] = {
    "keras-torch": keras_export,
    "keras-torch-1": WAYS["keras-1"],
    "keras-torch-unfolded": torch_unfolded,
}
FEW_OF_TORCH = ("keras-torch", "keras-torch-unfolded")


def draw(family: Family, model: keras.Model, count: int) -> np.ndarray:
    """Return images (count, C, H, W) of the family's range."""
    low, high = family.teacher.get("input", {}).get("range", (-DEVIATIONS, DEVIATIONS))
    images = np.random.default_rng(count).uniform(low, high, (count, *family.image))
    if model.inputs[0].dtype == "uint8":
        images = np.random.default_rng(count).integers(0, 256, images.shape)
    return images.astype(np.float32)


def to_input(images: Any, family: Family) -> Any:
    """Return images (N, C, H, W) as the net takes them; NumPy's and TensorFlow's and PyTorch's arrays alike."""
    turned = keras.ops.transpose(images, (0, 2, 3, 1))
    return keras.ops.reshape(turned, (-1, *family.shape))


def gradient(model: keras.Model, family: Family, images: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the gradient of the sum of the weighted outputs, at the images."""
    if BACKEND == "tensorflow":
        import tensorflow

        variable = tensorflow.Variable(images)
        with tensorflow.GradientTape() as tape:
            score = tensorflow.reduce_sum(model(to_input(variable, family), training=False) * weights)
        return np.asarray(tape.gradient(score, variable))
    import torch

    tensor = torch.tensor(images, requires_grad=True)
    score = (model(to_input(tensor, family), training=False) * torch.tensor(weights)).sum()
    (found,) = torch.autograd.grad(score, tensor)
    return found.numpy()


def measure(model: keras.Model, family: Family) -> None:
    """Give the BatchNorm layers the statistics of some images, so that deep nets keep their signal.

    What they return is shifted by its deviation, see `measured` in benchmarks/zoo/torch_ways.py.
    """
    norms = [layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.BatchNormalization)]
    for layer in norms:
        layer.momentum = 0.0
        if layer.center:
            layer.beta.assign_add(layer.gamma if layer.scale else keras.ops.ones_like(layer.beta))
    if norms:
        model(to_input(draw(family, model, 16), family), training=True)


def answers(model: keras.Model, family: Family) -> dict[str, np.ndarray]:
    """Return what the net itself says, for every batch size."""
    found = {}
    bytes_ = model.inputs[0].dtype == "uint8"
    for count in (2,) if family.shape[0] >= LARGE and len(family.shape) == 3 else BATCHES:
        images = draw(family, model, count)
        taken = keras.ops.cast(to_input(images, family), model.inputs[0].dtype)
        outputs = keras.ops.convert_to_numpy(model(taken, training=False))
        found[f"images{count}"] = images
        found[f"probabilities{count}" if family.probabilities else f"logits{count}"] = outputs
        if not bytes_:
            weights = np.random.default_rng(count).standard_normal(outputs.shape).astype(np.float32)
            found |= {f"weights{count}": weights, f"gradient{count}": gradient(model, family, images, weights)}
    return found


def write(name: str, way: str, path: Path) -> None:
    """Make one export, and what belongs to it."""
    keras.utils.set_random_seed(0)
    family = FAMILIES[name]
    model = randomised(family.build(family.shape))
    measure(model, family)
    values = answers(model, family)
    (WAYS if BACKEND == "tensorflow" else WAYS_OF_TORCH)[way](model, family, path)
    np.savez(shelf.beside(path, ".npz"), **values)
    if teacher := family.teacher:
        turned = way == "tf2onnx-nchw" and "layout" in teacher.get("input", {})
        told = {"input": {**teacher["input"], "layout": "NCHW"}} if turned else teacher
        shelf.beside(path, ".json").write_text(shelf.json.dumps(told))


if __name__ == "__main__":
    ways, few = (WAYS, FEW) if BACKEND == "tensorflow" else (WAYS_OF_TORCH, FEW_OF_TORCH)
    shelf.serve(__doc__, {name: few if family.few else tuple(ways) for name, family in FAMILIES.items()}, write)
