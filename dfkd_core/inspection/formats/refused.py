"""The formats that are not accepted as a teacher: how each is recognised, and what to do with such a file (torch-free).

A hint assumes that the user has this file and nothing else, and says what else is needed.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

WEIGHTS = (
    "It holds weights, or a pickled network, and nothing of the network's code. On your own machine, with that code, "
    "dfkd submit mynet.py:Net --weights model.pt --shape C,H,W exports the network and sends it; in Python, "
    "dfkd.compress(model, …). Weights of an architecture of the catalogue: "
    "dfkd export-teacher model.pt --architecture NAME --input C,H,W -o teacher.safetensors"
)
TORCHSCRIPT = (
    "It is a program, which is not run here. On your machine, where you trust it, write net.py with the two lines "
    "`import torch` and `def build(): return torch.jit.load('model.pt')`, then: "
    "dfkd export-teacher net:build --input C,H,W -o teacher.onnx"
)
EXPORTED_PROGRAM = (
    "It can hold pickles, which are not opened here. On your machine, where you trust it, write net.py with the two "
    "lines `import torch` and `def build(): return torch.export.load('model.pt2').module()`, then: "
    "dfkd export-teacher net:build --input C,H,W -o teacher.onnx (with --batch 1 where it was exported for one image)"
)
KERAS = (
    "Where Keras is installed: python -c \"import keras; keras.saving.load_model('model.keras').export('teacher.onnx', "
    "format='onnx')\""
)
TENSORFLOW = "python -m tf2onnx.convert --saved-model DIR --output teacher.onnx"
TFLITE = (
    "If it computes with floats: python -m tf2onnx.convert --tflite model.tflite --output teacher.onnx. A quantised "
    "model carries no gradient: convert the network from which it was made."
)
FROZEN = (
    "python -m tf2onnx.convert --graphdef model.pb --inputs NAME:0 --outputs NAME:0 --output teacher.onnx, with the "
    "names of its input and of its logits"
)
MATLAB = "In MATLAB: exportONNXNetwork(net, 'teacher.onnx', 'OpsetVersion', 14)"
PADDLE = (
    "paddle2onnx --model_dir DIR --model_filename model.pdmodel --params_filename model.pdiparams "
    "--save_file teacher.onnx"
)
COMPILED = "A compiled or quantised model carries no gradient: export the network from which it was made to ONNX."
UNPACK = "Unpack it, and send the model file in it."
ANY = (
    "A teacher is an ONNX file, or safetensors with the weights of an architecture of the catalogue. "
    "Of a PyTorch network: dfkd export-teacher mynet.py:Net --weights model.pt --input C,H,W -o teacher.onnx"
)


class Refused(NamedTuple):
    """A format that is not accepted."""

    what: str
    hint: str


Names = Sequence[str]  # the names in a zip archive


def _ends(*endings: str) -> Callable[[Names], bool]:
    """Return whether a name in the archive is one of these, in whatever folder."""
    return lambda names: any(f"/{name}".endswith(f"/{ending}") for name in names for ending in endings)


def _holds(*parts: str) -> Callable[[Names], bool]:
    """Return whether a name in the archive has one of these in it."""
    return lambda names: any(part in f"/{name}" for name in names for part in parts)


# the first entry whose test succeeds applies
_ARCHIVES: list[tuple[Refused, Callable[[Names], bool]]] = [
    (
        Refused("a compiled AOTInductor package (.pt2)", COMPILED),
        lambda names: any("/aotinductor/" in name and name.endswith((".so", ".o", ".cubin")) for name in names),
    ),
    (
        Refused("a torch.export archive (.pt2)", EXPORTED_PROGRAM),
        _ends("archive_format", "serialized_exported_program.json"),
    ),
    (
        Refused("a TorchScript archive", TORCHSCRIPT),
        lambda names: _ends("constants.pkl")(names) or _holds("/code/")(names),
    ),
    (
        Refused("a PyTorch file of weights (.pt, .pth, .ckpt)", WEIGHTS),
        _ends("data.pkl", ".format_version", ".storage_alignment"),
    ),
    (Refused("a Keras file (.keras)", KERAS), _ends("metadata.json", "model.weights.h5")),
    (
        Refused("a TensorFlow SavedModel in an archive", f"Unpack it into DIR, then: {TENSORFLOW}"),
        _ends("saved_model.pb"),
    ),
    (Refused("a Core ML package", COMPILED), _holds("/com.apple.CoreML/")),
    (Refused("a TorchServe archive (.mar)", UNPACK), _holds("/MAR-INF/")),
    (
        Refused("a file of NumPy arrays (.npz)", ANY),
        lambda names: len(names) > 0 and all(name.endswith(".npy") for name in names),
    ),
]


def archive_of(names: Names) -> Refused:
    """Return what a zip archive is, by the names in it."""
    for refused, matches in _ARCHIVES:
        if matches(names):
            return refused
    models = [name for name in names if name.endswith((".onnx", ".safetensors"))]
    inside = f" In it lies {models[0]}." if models and models[0].isprintable() and len(models[0]) < 100 else ""
    return Refused("a zip archive", f"{UNPACK}{inside}" if inside or len(names) > 1 else ANY)


def is_zip(head: bytes) -> bool:
    """Return whether the first bytes are those of a zip archive."""
    return head.startswith((b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08"))


def _is_pickle(head: bytes) -> bool:
    """Return whether the bytes begin a pickle: protocols from 2 on have a header, older ones a mark or import."""
    if len(head) > 2 and head[0] == 0x80 and 2 <= head[1] <= 5:
        return True
    return head.startswith(
        (b"(dp", b"(lp", b"(i", b"ccopy_reg\n", b"c__builtin__\n", b"cbuiltins\n", b"cos\n", b"cposix\n")
    )


def _is_saved_model(head: bytes) -> bool:
    """Return whether the bytes begin a SavedModel: schema version 1, then a graph where ONNX has a short name."""
    return head.startswith(b"\x08\x01\x12") and (b"serve" in head or b"tensorflow" in head.lower())


# the first entry whose test of the first bytes succeeds applies
_HEADS: list[tuple[Refused, Callable[[bytes], bool]]] = [
    (
        Refused(
            "a pickled scikit-learn model", "Only networks that compute on images can teach, as ONNX or safetensors."
        ),
        lambda b: _is_pickle(b) and b"sklearn" in b,
    ),
    (Refused("a pickle (an older .pt or .pth)", WEIGHTS), _is_pickle),
    (Refused("a MATLAB file (.mat)", MATLAB), lambda b: b.startswith(b"MATLAB ") and b"MAT-file" in b[:64]),
    (Refused("a TensorFlow SavedModel (saved_model.pb)", TENSORFLOW), _is_saved_model),
    (Refused("a frozen TensorFlow graph (.pb)", FROZEN), lambda b: b[:1] == b"\n" and b"\x12\x0bPlaceholder" in b),
    (Refused("a PaddlePaddle model (.pdmodel)", PADDLE), lambda b: b[:1] == b"\n" and b"\x04feed" in b),
    (
        Refused("an HDF5 file (Keras .h5)", KERAS.replace("model.keras", "model.h5")),
        lambda b: b.startswith(b"\x89HDF\r\n\x1a\n"),
    ),
    (Refused("a TFLite model", TFLITE), lambda b: b[4:8] == b"TFL3"),
    (
        Refused("a GGUF model", "Only image classifiers are taken, as ONNX or safetensors."),
        lambda b: b.startswith(b"GGUF"),
    ),
    (Refused("an ONNX Runtime file (.ort)", COMPILED), lambda b: b[4:8] == b"ORTM"),
    (Refused("a TensorRT engine", COMPILED), lambda b: b.startswith(b"ftrt")),
    (Refused("a NumPy array", ANY), lambda b: b.startswith(b"\x93NUMPY")),
    (Refused("a gzip archive", UNPACK), lambda b: b.startswith(b"\x1f\x8b")),
    (Refused("a bzip2 archive", UNPACK), lambda b: b.startswith(b"BZh")),
    (Refused("an xz archive", UNPACK), lambda b: b.startswith(b"\xfd7zXZ\x00")),
    (Refused("a zstd archive", UNPACK), lambda b: b.startswith(b"\x28\xb5\x2f\xfd")),
    (Refused("a 7z archive", UNPACK), lambda b: b.startswith(b"7z\xbc\xaf\x27\x1c")),
    (Refused("a rar archive", UNPACK), lambda b: b.startswith(b"Rar!\x1a\x07")),
    (Refused("a tar archive", UNPACK), lambda b: b[257:262] == b"ustar"),
    (Refused("a program (ELF)", ANY), lambda b: b.startswith(b"\x7fELF")),
    (Refused("a Windows program", ANY), lambda b: b.startswith(b"MZ")),
    (Refused("a PNG image", ANY), lambda b: b.startswith(b"\x89PNG")),
    (Refused("a JPEG image", ANY), lambda b: b.startswith(b"\xff\xd8\xff")),
    (Refused("a PDF document", ANY), lambda b: b.startswith(b"%PDF")),
    (
        Refused("a Git LFS pointer", "Fetch the file first: git lfs pull"),
        lambda b: b.startswith(b"version https://git-lfs.github.com"),
    ),
    (
        Refused("an HTML page", "A download probably gave its login or error page."),
        lambda b: b.lstrip()[:15].lower().startswith((b"<!doctype html", b"<html")),
    ),
    (Refused("an XML file (OpenVINO?)", COMPILED), lambda b: b.lstrip().startswith(b"<?xml")),
    (Refused("a file of zeros", "A download or copy probably did not finish."), lambda b: len(b) >= 8 and not any(b)),
]


def format_of(head: bytes) -> Refused | None:
    """Return the refused format whose files begin with these bytes, or None; zip archives are not told."""
    return next((refused for refused, matches in _HEADS if matches(head)), None)


def unknown(head: bytes, filename: str | None) -> Refused:
    """Return what to say of a file that is in no known format; the name is all that is left to go by."""
    text = head[:64].replace(b"\n", b" ").replace(b"\r", b" ").replace(b"\t", b" ")
    if text.isascii() and text.decode().isprintable():
        return Refused("a text file", ANY)
    suffix = (filename or "").rpartition(".")[2].lower()
    named = {
        "pb": Refused("a TensorFlow graph", f"A SavedModel: {TENSORFLOW}. A frozen graph: {FROZEN}."),
        "mlmodel": Refused("a Core ML model", COMPILED),
        "engine": Refused("a TensorRT engine", COMPILED),
        "onnx": Refused("a file that is no ONNX, whatever its name says,", ANY),
    }
    return named.get(suffix, Refused("a file of this kind", ANY))
