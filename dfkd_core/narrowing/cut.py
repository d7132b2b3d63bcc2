"""Cut: the narrower plan, made of a plan and the channels that stay."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dfkd_core.narrowing.groups import FIXED, Channels
from dfkd_core.narrowing.trace import Block, Use
from dfkd_core.narrowing.units import Ids
from dfkd_core.onnx_import.ir.plan import Array, Plan, Scaled, Shape, Step

Mask = NDArray[np.bool_]


def cut(channels: Channels, staying: Mask) -> Plan:
    """Return the plan with only those channels whose member stays: (channels,) bool. Members without group stay."""
    return _Cutter(channels, staying | (channels.group_of == FIXED)).plan()


class _Cutter:
    def __init__(self, channels: Channels, staying: Mask) -> None:
        self.channels, self.staying = channels, staying
        self.old = channels.plan
        self.constants: dict[str, Array] = {}
        self.shapes: dict[str, Shape] = dict(self.old.shapes)
        self.cuts: dict[str, list[tuple[tuple[Any, ...], str]]] = {}  # constant → its cuts and their names

    def plan(self) -> Plan:
        for name, blocks in self.channels.values.items():
            self.shapes[name] = self._shape(self.old.shapes[name], blocks)
        steps = []
        for number, step in enumerate(self.old.steps):
            inputs = tuple(self._input(number, position) for position in range(len(step.inputs)))
            attributes = self._attributes(step, inputs)
            steps.append(replace(step, inputs=inputs, attributes=attributes))
        measured = {name for step in steps if step.op == "BatchNormalization" for name in step.inputs[3:]}
        learned = {
            name: array.size
            for name, array in self.constants.items()
            if array.dtype.kind == "f" and array.ndim and name not in measured
        }
        return replace(self.old, steps=tuple(steps), constants=self.constants, shapes=self.shapes, learned=learned)

    def _shape(self, shape: Shape, blocks: Sequence[Block]) -> Shape:
        sizes = list(shape)
        for block in blocks:
            sizes[block.axes[-1]] = _entries(self.staying[block.ids]).shape[-1]
        return tuple(sizes)

    def _input(self, number: int, position: int) -> str | None:
        """The name of an operand; a constant is cut on the way. Equal cuts of one constant share a name."""
        name = self.old.steps[number].inputs[position]
        if name is None or name not in self.old.constants:
            return name
        uses = self.channels.uses_at.get((number, position), [])
        key = tuple((use.axes, use.ids.tobytes()) for use in uses)
        known = self.cuts.setdefault(name, [])
        found = next((other for cuts, other in known if cuts == key), None)
        if found is None:
            found = name if not known else f"{name}/{number}.{position}"
            known.append((key, found))
            self.constants[found] = self._constant(self.old.constants[name], uses)
            self.shapes[found] = self.constants[found].shape
        return found

    def _constant(self, array: Array, uses: Sequence[Use]) -> Array:
        view = next((use.view for use in uses if use.view is not None), None)
        array = array if view is None else array.reshape(view)
        for use in uses:
            axes = [axis for axis in use.axes if axis is not None]
            entries = _entries(self.staying[use.ids])
            if len(axes) == 1:
                array = array.take(entries, axes[0])
                continue
            places = [1] * array.ndim
            for at, axis in enumerate(axes):
                places[axis] = entries.shape[at]
            array = np.take_along_axis(array, entries.reshape(places), axes[-1])
        return array if view is None else array.reshape(-1, *array.shape[2:])

    def _attributes(self, step: Step, inputs: Sequence[str | None]) -> Mapping[str, Any]:
        rewrite = _REWRITES.get(step.op)
        return step.attributes if rewrite is None else {**step.attributes, **rewrite(self, step, inputs)}

    def after(self, name: str | None) -> Shape:
        """The new shape of a value or a constant."""
        return self.shapes[str(name)]

    def places(self, name: str | None, axis: int) -> Ids | None:
        """For each entry along an axis of a value its place among those that stay, or -1; None if none is told apart.

        Rows stay, and only whole rows are taken.
        """
        for block in self.channels.values.get(str(name), ()):
            if block.axes == (axis,):
                staying = self.staying[block.ids]
                return np.where(staying, np.cumsum(staying) - 1, -1)
        return None


def _entries(staying: Mask) -> Ids:
    """Which entries stay in each row: an array of indices (…, entries that stay).

    Raises:
        ValueError: rows keep different numbers of entries.
    """
    rows = staying.reshape(-1, staying.shape[-1])
    counts = rows.sum(axis=1)
    if len(set(counts.tolist())) > 1:
        raise ValueError("the channels that stay are not spread evenly over the groups of a layer")
    return np.nonzero(rows)[1].reshape(*staying.shape[:-1], int(counts[0]))


def _resized(cutter: _Cutter, step: Step, _inputs: Sequence[str | None]) -> dict[str, Any]:
    """The shape of Reshape and Expand."""
    sizes = zip(step.attributes["shape"], cutter.after(step.outputs[0]), strict=True)
    return {"shape": tuple(Scaled(new) if isinstance(old, Scaled) else new for old, new in sizes)}


def _split(cutter: _Cutter, step: Step, _inputs: Sequence[str | None]) -> dict[str, Any]:
    axis = int(step.attributes["axis"])
    return {"sizes": tuple(cutter.after(name)[axis] for name in step.outputs)}


def _slice(cutter: _Cutter, step: Step, _inputs: Sequence[str | None]) -> dict[str, Any]:
    cuts = []
    for axis, start, stop, stride in step.attributes["cuts"]:
        places = cutter.places(step.inputs[0], axis)
        if places is None:
            kept = cutter.after(step.inputs[0])[axis] if stop == cutter.old.shapes[str(step.inputs[0])][axis] else stop
            cuts.append((axis, start, kept, stride))
            continue
        chosen = [place for place in places[np.arange(start, stop, stride)].tolist() if place >= 0]
        cuts.append((axis, chosen[0], chosen[-1] + stride, stride))
    return {"cuts": tuple(cuts)}


def _gather(cutter: _Cutter, step: Step, _inputs: Sequence[str | None]) -> dict[str, Any]:
    places = cutter.places(step.inputs[0], int(step.attributes["axis"]))
    if places is None:
        return {}
    chosen = places[np.asarray(step.attributes["indices"], np.int64)]
    return {"indices": chosen[chosen >= 0].tolist() if chosen.ndim == 1 else chosen.tolist()}


def _convolution(cutter: _Cutter, step: Step, inputs: Sequence[str | None]) -> dict[str, Any]:
    return {"group": cutter.after(inputs[0])[1] // cutter.after(inputs[1])[1]}


def _transposed(cutter: _Cutter, step: Step, inputs: Sequence[str | None]) -> dict[str, Any]:
    return {"group": cutter.after(step.outputs[0])[1] // cutter.after(inputs[1])[1]}


def _group_norm(cutter: _Cutter, step: Step, _inputs: Sequence[str | None]) -> dict[str, Any]:
    return {"channels": cutter.after(step.outputs[0])[1]}


def _attention(cutter: _Cutter, step: Step, _inputs: Sequence[str | None]) -> dict[str, Any]:
    if not step.attributes["folded"]:
        return {"heads": (cutter.after(step.inputs[0])[1], cutter.after(step.inputs[1])[1])}
    counts = []
    for name, heads in zip(step.inputs, step.attributes["heads"], strict=False):
        size = cutter.old.shapes[str(name)][2] // heads
        counts.append(cutter.after(name)[2] // size)
    return {"heads": tuple(counts)}


def _pad(cutter: _Cutter, step: Step, _inputs: Sequence[str | None]) -> dict[str, Any]:
    pads = list(step.attributes["pads"])
    for block in cutter.channels.values.get(step.outputs[0], ()):
        axis = block.axes[-1]
        before, after = pads[axis]
        if (before or after) and len(block.axes) == 1:
            staying = cutter.staying[block.ids]
            pads[axis] = (int(staying[:before].sum()), int(staying[len(staying) - after :].sum()))
    return {"pads": tuple(pads)}


_REWRITES: dict[str, Callable[[_Cutter, Step, Sequence[str | None]], dict[str, Any]]] = {
    "Reshape": _resized,
    "Expand": _resized,
    "Split": _split,
    "Slice": _slice,
    "Gather": _gather,
    "Conv": _convolution,
    "ConvTranspose": _transposed,
    "GroupNormalization": _group_norm,
    "Attention": _attention,
    "Pad": _pad,
}
