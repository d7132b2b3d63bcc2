"""Read the weights of a checkpoint without running code: find the right part and strip the prefixes of wrappers."""

import pickle
import re
import warnings
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dfkd_core.errors import FormatUnsupported, TeacherInvalid
from dfkd_core.inspection.formats.detection import TeacherFormat, sniff_file

PARTS = (
    *("state_dict", "model_state_dict", "model_state", "model", "net", "network", "module", "weights", "params"),
    *("ema", "ema_state_dict", "state_dict_ema", "model_ema", "ema_model"),
)
"""Keys under which training scripts keep a network's weights. The first that is found is taken."""
PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.", "ema_model.", "teacher.")
AVERAGED = "n_averaged"  # the counter of torch.optim.swa_utils

SAVE_LINE = "torch.save(model.state_dict(), 'weights.pt')"
_GLOBAL = re.compile(r"GLOBAL ([\w.]+)")
_MOST_STAND_INS = 100


def read_weights(path: Path, *, pick: str | None = None) -> tuple[dict[str, Tensor], list[str]]:
    """Return the tensors of a checkpoint by plain names, and lines that say what was done to get them.

    Floating-point tensors become float32. `pick` names a part of the checkpoint as a dotted path.

    Raises:
        FormatUnsupported: the file could only be opened by running its code.
        TeacherInvalid: the file holds no weights.
    """
    notes: list[str] = []
    state = _strip_prefixes(_choose(_open(path), pick, notes), notes)
    kept = {name: tensor for name, tensor in state.items() if isinstance(tensor, Tensor) and name != AVERAGED}
    left_out = sorted(state.keys() - kept.keys())
    if left_out:
        notes.append(f"left out, as they are no weights: {_few(left_out)}")
    return {name: _storable(name, tensor, notes) for name, tensor in kept.items()}, notes


def _open(path: Path) -> Any:  # Any: a checkpoint can hold any object
    try:
        found = sniff_file(path)
    except FormatUnsupported:
        return _unpickle(path)
    if found is TeacherFormat.SAFETENSORS:
        from safetensors.torch import load_file

        return load_file(path)
    raise FormatUnsupported("this is an ONNX file, not weights", hint="Submit it as it is: dfkd submit FILE.")


def _unpickle(path: Path) -> Any:  # Any: as above
    """Read the checkpoint with PyTorch's restricted unpickler, which runs no code. No unsafe attempt follows.

    Checkpoints of Lightning, timm and others hold objects beside the weights, such as hyperparameters. They become
    empty stand-ins: the classes that the file names are neither imported nor called.
    """
    hint = f"Where the network was trained, save its weights alone, and give that file: {SAVE_LINE}"
    stand_ins: dict[str, type] = {}
    refusal: FormatUnsupported | None = None
    while True:
        try:
            with (
                warnings.catch_warnings(),
                torch.serialization.safe_globals([(cls, at) for at, cls in stand_ins.items()]),
            ):
                warnings.simplefilter("ignore")  # it warns about pickle protocols that it may not know
                found = torch.load(path, map_location="cpu", weights_only=True)
            break
        except pickle.UnpicklingError as error:
            named = _GLOBAL.search(str(error))
            what = f"it holds {named[1]}, which is no weights" if named else "it is no checkpoint, or more than weights"
            refusal = refusal or FormatUnsupported(
                f"{path.name} is not opened: {what}; any other way to read it would run the code in it", hint=hint
            )
            if named is None or named[1] in stand_ins or len(stand_ins) == _MOST_STAND_INS:
                raise refusal from None
            stand_ins[named[1]] = _Opaque if named[1] == "numpy.dtype" else _Empty
        except Exception as error:  # a file that is no checkpoint can make the unpickler raise anything
            if refusal is not None:
                raise refusal from None
            if "TorchScript" in str(error):
                raise FormatUnsupported(
                    f"{path.name} is a TorchScript archive, which is a program", hint=hint
                ) from None
            raise FormatUnsupported(f"{path.name} is no checkpoint that PyTorch can read", hint=hint) from error
    if refusal is not None and not (isinstance(found, Mapping) and any(map(_is_state, (found, *found.values())))):
        raise refusal
    return found


class _Empty:
    """Stands for a class or function that a checkpoint names: gives an empty mapping, whatever it is called with.

    The restricted unpickler puts items and attributes into no other object.
    """

    def __new__(cls, *_: object) -> Any:  # Any: no instance of this class
        return OrderedDict()


class _Opaque:
    """Stands for a class whose state is no mapping, and forgets that state."""

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, _: object) -> None:
        pass


def _choose(found: Any, pick: str | None, notes: list[str]) -> Mapping[str, Any]:
    """Return the part that holds the weights: the one that `pick` names, or the first of PARTS, or the only one."""
    if pick is not None:
        return _pick(found, pick)
    if not isinstance(found, Mapping):
        raise TeacherInvalid(f"the file holds a {type(found).__name__}, not weights by name", hint=SAVE_LINE)
    parts = {key: value for key, value in found.items() if isinstance(key, str) and _is_state(value)}
    if not parts and _is_state(found):
        return found
    if not parts:
        raise TeacherInvalid(
            f"there are no weights by name in the file; at its top are {_few(map(str, found))}", hint=SAVE_LINE
        )
    best = next((name for name in PARTS if name in parts), None)
    if best is None and len(parts) > 1:
        raise TeacherInvalid(f"several parts of the file hold weights: {_few(parts)}", hint="Name one: --pick PART.")
    best = best or next(iter(parts))
    others = [name for name in parts if name != best]
    notes.append(f"took the part {best}" + (f"; also there: {_few(others)} (--pick)" if others else ""))
    return _unwrap(parts[best], notes)


def _unwrap(found: Mapping[str, Any], notes: list[str]) -> Mapping[str, Any]:
    """Return the weights inside `found` if a training script wrapped them once more, otherwise `found`."""
    inner = [name for name in PARTS if _is_state(found.get(name))]
    if not inner or any(isinstance(value, Tensor) for value in found.values()):
        return found
    notes.append(f"took the part {inner[0]} in it")
    return found[inner[0]]  # type: ignore[no-any-return]  # _is_state has checked it


def _pick(found: Any, pick: str) -> Mapping[str, Any]:
    for part in pick.split("."):
        if not isinstance(found, Mapping) or part not in found:
            there = _few(map(str, found)) if isinstance(found, Mapping) else f"a {type(found).__name__}"
            raise TeacherInvalid(f"there is no part {part!r} of {pick!r} in the file; there: {there}")
        found = found[part]
    if not _is_state(found):
        raise TeacherInvalid(f"the part {pick!r} of the file holds no weights by name")
    return found  # type: ignore[no-any-return]  # _is_state has checked it


def _is_state(value: Any) -> bool:
    """Return whether `value` maps names to tensors, directly or, for a wrapped state, one level deeper."""
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        return False
    below = (inner for name, inner in value.items() if name in PARTS and isinstance(inner, Mapping))
    return any(isinstance(inner, Tensor) for inner in value.values()) or any(map(_is_state, below))


def _strip_prefixes(state: Mapping[str, Any], notes: list[str]) -> dict[str, Any]:
    """Strip the prefixes that wrappers put before names, each only if every name has it."""
    plain = dict(state)
    while True:
        names = [name for name in plain if name != AVERAGED]
        found = next((p for p in PREFIXES if names and all(name.startswith(p) for name in names)), None)
        if found is None:
            break
        notes.append(f"stripped {found} from {len(names)} names")
        plain = {name.removeprefix(found): value for name, value in plain.items()}
    if any("_orig_mod." in name for name in plain):
        notes.append("stripped _orig_mod. within names")
        plain = {name.replace("_orig_mod.", ""): value for name, value in plain.items()}
    return plain


def _storable(name: str, tensor: Tensor, notes: list[str]) -> Tensor:
    """Return a dense copy on the CPU, with floating-point numbers as float32."""
    if tensor.is_complex() or tensor.is_quantized or tensor.layout is not torch.strided or tensor.is_meta:
        raise TeacherInvalid(f"tensor {name} is complex, quantised, sparse or without data", hint="Use float weights.")
    dense = tensor.detach().cpu()
    if dense.is_floating_point() and dense.dtype is not torch.float32:
        line = f"{str(dense.dtype).removeprefix('torch.')} became float32"
        if line not in notes:
            notes.append(line)
        dense = dense.float()
    return dense.clone(memory_format=torch.contiguous_format)


def _few(names: Iterable[str]) -> str:
    """Join the first eight names for an error text."""
    listed = list(names)
    return ", ".join(listed[:8]) + (f" and {len(listed) - 8} more" if len(listed) > 8 else "")
