"""Small ONNX models of one operator each, with drawn constants."""

from typing import Any

import numpy as np
from onnx import ModelProto

from tests.dfkd_core.onnx_models import flattened, node

RNG = np.random.default_rng(1)


def real(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def whole(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def unary(op: str, *, opset: int = 18, **attributes: Any) -> ModelProto:
    return flattened([node(op, ["images"], **attributes)], opset=opset)


def with_constants(op: str, *arrays: np.ndarray, opset: int = 18, **attributes: Any) -> ModelProto:
    names = [f"c{index}" for index in range(len(arrays))]
    return flattened([node(op, ["images", *names], **attributes)], dict(zip(names, arrays, strict=True)), opset=opset)


def on_positive(op: str) -> ModelProto:
    """The operator on 1 + images²."""
    nodes = [node("Mul", ["images", "images"], ["square"]), node("Add", ["square", "one"], ["positive"])]
    return flattened([*nodes, node(op, ["positive"])], {"one": np.float32(1)})


def masked(op: str) -> ModelProto:
    """images where a comparison holds, half of them elsewhere."""
    nodes = [node(op, ["images", "limit"], ["mask"]), node("Mul", ["images", "half"], ["smaller"])]
    constants = {"limit": np.float32(0.3), "half": np.float32(0.5)}
    return flattened([*nodes, node("Where", ["mask", "images", "smaller"])], constants)


def logical(op: str) -> ModelProto:
    nodes = [
        node("Greater", ["images", "low"], ["above"]),
        node("Less", ["images", "high"], ["below"]),
        node(op, ["above", "below"], ["both"]),
        node("Not", ["both"], ["neither"]),
        node("Cast", ["neither"], ["number"], to=1),
        node("Mul", ["images", "number"], ["part"]),
        node("Add", ["images", "part"]),
    ]
    return flattened(nodes, {"low": np.float32(-1), "high": np.float32(1)})


def logical_test(op: str, **attributes: Any) -> ModelProto:
    """0.5 where the logarithm of images above 0 and of 0 elsewhere is special, the exponent of the image elsewhere."""
    nodes = [
        node("Relu", ["images"], ["positive"]),
        node("Log", ["positive"], ["logarithm"]),
        node(op, ["logarithm"], ["special"], **attributes),
        node("Exp", ["images"], ["e"]),
        node("Where", ["special", "half", "e"]),
    ]
    return flattened(nodes, {"half": np.float32(0.5)}, opset=20)


def split_in_two(opset: int) -> ModelProto:
    sizes = {"split": [1, 3]} if opset < 13 else {}
    inputs = ["images"] if opset < 13 else ["images", "sizes"]
    nodes = [node("Split", inputs, ["a", "b"], axis=1, **sizes), node("Concat", ["b", "a"], axis=1)]
    return flattened(nodes, None if opset < 13 else {"sizes": whole(1, 3)}, opset=opset)


def product_of_images() -> ModelProto:
    nodes = [node("Transpose", ["images"], ["t"], perm=[0, 1, 3, 2]), node("MatMul", ["images", "t"])]
    return flattened(nodes)


def gemm(**attributes: Any) -> ModelProto:
    shape = (7, 96) if attributes.get("transB") else (96, 7)
    nodes = [node("Flatten", ["images"], ["flat"]), node("Gemm", ["flat", "w", "b"], **attributes)]
    return flattened(nodes, {"w": real(*shape), "b": real(7)})


def bounded(op: str) -> ModelProto:
    """The operator on 0.9 tanh(images)."""
    nodes = [node("Tanh", ["images"], ["tanh"]), node("Mul", ["tanh", "most"], ["inside"]), node(op, ["inside"])]
    return flattened(nodes, {"most": np.float32(0.9)})


def signed_root() -> ModelProto:
    """sign(x) sqrt(1 + |x|): the sign has no gradient of its own and needs none."""
    nodes = [
        node("Sign", ["images"], ["sign"]),
        node("Abs", ["images"], ["size"]),
        node("Add", ["size", "one"], ["more"]),
        node("Sqrt", ["more"], ["root"]),
        node("Mul", ["sign", "root"]),
    ]
    return flattened(nodes, {"one": np.float32(1)})


def mask_as_number(to: int) -> ModelProto:
    """A mask that is cast to `to`, and from there to real numbers."""
    nodes = [
        node("Greater", ["images", "low"], ["above"]),
        node("Cast", ["above"], ["odd"], to=to),
        node("Cast", ["odd"], ["number"], to=1),
        node("Mul", ["images", "number"]),
    ]
    return flattened(nodes, {"low": np.float32(0.1)})


def attention(
    *, mask: np.ndarray | None = None, rank: int = 4, heads: int = 4, shared: int = 4, **attributes: Any
) -> ModelProto:
    """Queries are the images; keys and values are linear in them."""
    if rank == 3:
        attributes |= {"q_num_heads": heads, "kv_num_heads": shared}
    shape = whole(0, heads, 24 // heads, 4) if rank == 4 else whole(0, 4, 24)
    nodes = [
        node("Reshape", ["images", "shape"], ["q"]),
        node("MatMul", ["q", "wk"], ["k"]),
        node("MatMul", ["q", "wv"], ["v"]),
    ]
    nodes += [node("Attention", ["q", "k", "v", *(["mask"] if mask is not None else [])], **attributes)]
    wide = 4 if rank == 4 else 24
    narrow = wide if rank == 4 else 24 * shared // heads
    constants = {"shape": shape, "wk": real(wide, narrow), "wv": real(wide, narrow)}
    return flattened(nodes, constants | ({"mask": mask} if mask is not None else {}), opset=23)


def resized(*, scales: list[float] | None = None, sizes: list[int] | None = None, **attributes: Any) -> ModelProto:
    if scales is not None:
        return with_constants("Resize", real(0), np.array([1, 1, *scales], np.float32), **attributes)
    nodes = [
        node("Shape", ["images"], ["shape"], end=2),
        node("Concat", ["shape", "side"], ["sizes"], axis=0),
        node("Resize", ["images", "", "", "sizes"], **attributes),
    ]
    return flattened(nodes, {"side": whole(*(sizes or ()))})


def sampled(**attributes: Any) -> ModelProto:
    """Images read at places that depend on the images."""
    nodes = [
        node("ReduceMean", ["images", "all"], ["flat"], keepdims=0),
        node("Unsqueeze", ["flat", "axes"], ["lifted"]),
        node("Mul", ["lifted", "slope"], ["bent"]),
        node("Add", ["bent", "map"], ["theta"]),
        node("Shape", ["images"], ["shape"]),
        node("AffineGrid", ["theta", "shape"], ["grid"], align_corners=attributes.get("align_corners", 0)),
        node("GridSample", ["images", "grid"], **attributes),
    ]
    constants = {"all": whole(1, 2, 3), "axes": whole(1, 2), "slope": 0.1 * real(2, 3)}
    constants["map"] = np.array([[0.8, 0.1, 0.05], [-0.1, 0.7, -0.02]], np.float32)
    return flattened(nodes, constants, opset=20)


def folded_patches(*, size: tuple[int, int] = (5, 7), **attributes: Any) -> ModelProto:
    """24 patches of one channel and 2 x 2 pixels, added up to an image."""
    nodes = [node("Reshape", ["images", "columns"], ["patches"]), node("Col2Im", ["patches", "s", "k"], **attributes)]
    return flattened(nodes, {"columns": whole(0, 4, 24), "s": whole(*size), "k": whole(2, 2)})
