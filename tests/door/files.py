"""B-070 to B-088: files that are no teacher, or are a program. Some would write a canary file if they were run."""

import io
import pickle
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np

from tests.builders import onnx_teacher
from tests.door.door import FRESH, OCTETS, Door, Input, Octets, Reply, Send
from tests.door.safetensors_files import GOOD as GOOD_SAFETENSORS

UNSUPPORTED = (415, "format-unsupported")
BROKEN = (422, "teacher-invalid")


class _MakesDirectory:
    """What a pickle of this does when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        import os

        return os.mkdir, (self.path,)


def evil(path: Path, protocol: int = 4) -> bytes:
    """A pickle that makes a directory."""
    return pickle.dumps(_MakesDirectory(path), protocol=protocol)


def with_canary(make: Callable[[Path], bytes]) -> Send:
    """A file that makes a directory when it is loaded; that directory must not appear."""

    def send(door: Door) -> Reply:
        canary = door.service.settings.data_dir.resolve().parent / "canary"
        reply = door.teacher(make(canary))
        assert not canary.exists()
        return reply

    return send


def archive(members: Mapping[str, bytes], *, compression: int = zipfile.ZIP_STORED) -> bytes:
    """A zip file."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as opened:
        for name, content in members.items():
            opened.writestr(zipfile.ZipInfo(name), content, compression)
    return file.getvalue()


def checkpoint(content: bytes = b"\x80\x02}.", **more: bytes) -> bytes:
    """What torch.save writes."""
    return archive({"archive/data.pkl": content, "archive/version": b"3\n", **more})


def tarred(*members: tarfile.TarInfo | tuple[str, bytes]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as opened:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                opened.addfile(member)
            else:
                entry = tarfile.TarInfo(member[0])
                entry.size = len(member[1])
                opened.addfile(entry, io.BytesIO(member[1]))
    return file.getvalue()


def link(name: str, target: str) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = tarfile.SYMTYPE, target
    return entry


def legacy(path: Path) -> bytes:
    """torch.save before 1.6: four pickles and raw storages."""
    return b"".join(pickle.dumps(value, protocol=2) for value in (0x1950A86A20F9469CFC6C, 1001, {})) + evil(path, 2)


def object_array(path: Path) -> bytes:
    file = io.BytesIO()
    np.save(file, np.array([_MakesDirectory(path)], dtype=object), allow_pickle=True)
    return file.getvalue()


def object_archive(path: Path) -> bytes:
    return archive({"weights.npy": object_array(path)})


def zeros(door: Door) -> Reply:
    """As many as a client likes to send; the answer comes after the first of them."""

    def pieces() -> Iterator[bytes]:
        for _ in range(90):
            yield bytes(2**20)

    return door.send("POST", "/teachers", pieces(), OCTETS)


def overlapping() -> bytes:
    """Two entries of the central directory that name the same bytes."""
    content = bytearray(archive({"archive/data.pkl": b"x" * 100, "archive/data/0": b"y" * 100}))
    first = content.find(b"PK\x01\x02")
    second = content.find(b"PK\x01\x02", first + 4)
    content[second + 42 : second + 46] = bytes(4)  # its local header is said to be the first one
    return bytes(content)


_ARCHIVES = {
    "gzip": b"\x1f\x8b\x08\x00" + bytes(60),
    "tar": tarred(("model.onnx", FRESH[:200])),
    "7z": b"7z\xbc\xaf\x27\x1c" + bytes(60),
    "xz": b"\xfd7zXZ\x00" + bytes(60),
    "zip": archive({"model.onnx": FRESH[:200]}),
}
_OTHERS = {
    "HTML": b"<!doctype html><title>login</title>",
    "PNG": b"\x89PNG\r\n\x1a\n" + bytes(60),
    "PDF": b"%PDF-1.7\n" + bytes(60),
    "ELF": b"\x7fELF\x02\x01\x01" + bytes(60),
    "text": b"these are the weights of my model\n" * 9,
    "JSON": b'{"weights": [1, 2, 3], "more": "' + b"x" * 60 + b'"}',
    "random bytes": np.random.default_rng(0).bytes(5000),
}
_CONTAINERS = {
    ".keras with a lambda": archive({"metadata.json": b"{}", "config.json": b'{"class_name": "Lambda"}'}),
    ".h5": b"\x89HDF\r\n\x1a\n" + bytes(60),
    "SavedModel zip": archive({"model/saved_model.pb": b"\x08\x01"}),
    ".mar": archive({"MAR-INF/MANIFEST.json": b"{}", "handler.py": b"import os"}),
    ".nemo": tarred(("./model_config.yaml", b"target: os.system"), ("./model_weights.ckpt", b"x")),
    "GGUF": b"GGUF\x03\x00\x00\x00" + bytes(60),
    "TFLite": b"\x1c\x00\x00\x00TFL3" + bytes(60),
    "Core ML package": archive({"Manifest.json": b"{}", "Data/com.apple.CoreML/model.mlmodel": b"x"}),
    "TensorRT engine": b"ftrt" + bytes(60),
    "ONNX Runtime file": b"\x08\x00\x00\x00ORTM" + bytes(60),
}
_POLYGLOTS = {
    "PDF and zip": (b"%PDF-1.4\n" + archive({"a": b"b"}), UNSUPPORTED),
    "safetensors, then zip": (GOOD_SAFETENSORS + archive({"data.pkl": b"x"}), BROKEN),
    "ONNX, then zip": (FRESH + archive({"data.pkl": b"x"}), BROKEN),
    "zip, then ONNX": (archive({"a": b"b"}) + onnx_teacher(), UNSUPPORTED),
    "pickle, then ONNX": (b"\x80\x04N." + onnx_teacher(), UNSUPPORTED),
}
_STATE_DICTS: dict[str, dict[str, bytes | Callable[[], bytes]]] = {
    "B-080": {"stride 0": checkpoint(b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n" + b"x" * 900)},
    "B-081": {"deflated": lambda: archive({"archive/data.pkl": bytes(10**6)}, compression=zipfile.ZIP_DEFLATED)},
    "B-082": {"sparse": checkpoint(b"\x80\x02ctorch._utils\n_rebuild_sparse_tensor\n")},
    "B-083": {
        "40 shared lists": checkpoint(b"\x80\x02]" + b"2" * 40 + b"."),
        "200,000 deep": checkpoint(b"\x80\x02" + b"]" * 200_000 + b"a" * 199_999 + b"."),
    },
    "B-084": {
        "70,000 members": lambda: archive({f"archive/data/{number}": b"" for number in range(70_000)}),
        "overlapping members": overlapping(),
        "member ../x": archive({"../x": b"x", "archive/data.pkl": b"x"}),
        "bytes before the archive": b"garbage!" + checkpoint(),
        "cut central directory": checkpoint()[:-40],
    },
    "B-085": {"short storage": checkpoint(**{"archive/data/0": b""})},
    "B-086": {
        "opcode soup": checkpoint(b"\x80\x02" + bytes(range(256)) * 8),
        "soup alone": b"\x80\x02" + bytes(range(256)),
    },
    "B-087": {name: checkpoint(b"\x80\x02c" + name.encode() + b"\n.") for name in ("torch\nload", "builtins\ngetattr")},
    "B-088": {
        "quantised": checkpoint(b"\x80\x02ctorch._utils\n_rebuild_qtensor\n"),
        "meta": checkpoint(b"\x80\x02X\x04\0\0\0meta"),
    },
}

INPUTS = [
    *(
        Input("B-070", f"{len(content)} bytes", Octets(content), *BROKEN, hint=True)
        for content in (b"", b"x", b"\x08\x09\x12\x01a\x3a\x02")
    ),
    *(
        Input("B-071", what, Octets(content), *UNSUPPORTED, hint=True)
        for what, content in {**_OTHERS, **_ARCHIVES}.items()
    ),
    *(
        Input(
            "B-072",
            f"pickle, protocol {protocol}",
            with_canary(lambda path, protocol=protocol: evil(path, protocol)),
            *UNSUPPORTED,
            hint=True,
        )
        for protocol in range(6)
    ),
    Input("B-072", "NumPy array of objects", with_canary(object_array), *UNSUPPORTED, hint=True),
    Input("B-072", ".npz of objects", with_canary(object_archive), *UNSUPPORTED, hint=True),
    Input("B-073", "zip", with_canary(lambda path: checkpoint(evil(path, 2))), *UNSUPPORTED, hint=True),
    Input("B-073", "before 1.6", with_canary(legacy), *UNSUPPORTED, hint=True),
    Input(
        "B-073",
        "tar",
        with_canary(lambda path: tarred(("sys_info", evil(path)), ("pickle", evil(path)))),
        *UNSUPPORTED,
        hint=True,
    ),
    Input(
        "B-074",
        "use_pickle",
        with_canary(
            lambda path: archive(
                {
                    "model/archive_format": b"pt2",
                    "model/data/weights/weights_config.json": b'{"config": {"w": {"use_pickle": true}}}',
                    "model/data/weights/w": evil(path, 2),
                }
            )
        ),
        *UNSUPPORTED,
        hint=True,
    ),
    Input(
        "B-074",
        "a library",
        Octets(archive({"model/archive_format": b"pt2", "model/data/aotinductor/model.so": b"\x7fELF"})),
        *UNSUPPORTED,
        hint=True,
    ),
    *(
        Input(
            "B-075",
            what,
            Octets(
                archive({"m/code/__torch__.py": code, "m/data.pkl": b"\x80\x02}.", "m/constants.pkl": b"\x80\x02)."})
            ),
            *UNSUPPORTED,
            hint=True,
        )
        for what, code in {
            "reads a file": b"return torch.from_file('/etc/passwd')",
            "loops": b"while True: pass",
            "1 TB": b"return torch.zeros([2**38])",
        }.items()
    ),
    *(Input("B-076", what, Octets(content), *UNSUPPORTED, hint=True) for what, content in _CONTAINERS.items()),
    *(Input("B-077", what, Octets(content), *code) for what, (content, code) in _POLYGLOTS.items()),
    Input("B-078", "zip", Octets(archive({"../../model.safetensors": GOOD_SAFETENSORS})), *UNSUPPORTED, hint=True),
    Input(
        "B-078", "tar with a link", Octets(tarred(link("model.safetensors", "/etc/passwd"))), *UNSUPPORTED, hint=True
    ),
    Input("B-079", "90 MiB in chunks", zeros, *UNSUPPORTED),
    Input("B-079", "ONNX with 50 MB of zeros behind it", Octets(lambda: FRESH + bytes(50_000_000)), *BROKEN, slow=True),
    *(
        Input(row, what.replace("\n", "."), Octets(content), *UNSUPPORTED, hint=True)
        for row, contents in _STATE_DICTS.items()
        for what, content in contents.items()
    ),
]
