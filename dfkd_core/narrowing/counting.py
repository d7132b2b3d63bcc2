"""Counting: the sizes, parameters, multiply-adds and values of a plan as functions of how many channels stay."""

from dataclasses import dataclass, field

import numpy as np

from dfkd_core.narrowing.figures import LayerChannels, Measure, Narrowing
from dfkd_core.narrowing.groups import FIXED, Channels, channels_of
from dfkd_core.narrowing.polynomial import Polynomial, polynomial
from dfkd_core.narrowing.units import Ids
from dfkd_core.onnx_import.ir.biases import biases_of
from dfkd_core.onnx_import.ir.parse import readable
from dfkd_core.onnx_import.ir.plan import Plan, Step, macs_of

Size = tuple[int, ...]  # entries that stay, then pairs: a group, and entries for each member left in a cell
Extent = Polynomial | int

WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul", "Einsum")
MODULES = (  # each has weights of its own in the network that is built of the plan
    "Conv", "ConvTranspose", "Gemm", "MatMul", "BatchNormalization", "LayerNormalization", "GroupNormalization"
)  # fmt: skip
STATISTICS = (3, 4)  # positions of the running mean and variance among the inputs of a BatchNormalization


def narrowing_of(plan: Plan) -> Narrowing:
    """Return how the figures of a plan follow from the channels that stay."""
    return counted(channels_of(plan))


def counted(channels: Channels) -> Narrowing:
    """Return how the figures follow from the channels that stay."""
    return _Counter(channels).count()


@dataclass(slots=True)
class _Counter:
    channels: Channels
    sizes: dict[Size, int] = field(default_factory=dict)  # size → its number

    def count(self) -> Narrowing:
        plan = self.channels.plan
        parameters, statistics = self._stored()
        macs, activations = polynomial(0), polynomial(0)
        for number, step in enumerate(plan.steps):
            inputs = [self._operand(number, position) for position in range(len(step.inputs))]
            outputs = [self._value(name) for name in step.outputs]
            macs += macs_of(step, inputs, outputs[0])
            activations = sum((_product(shape) for shape in outputs), activations)
        totals: dict[Measure, Polynomial] = {
            "parameters": parameters, "statistics": statistics, "macs": macs, "activations": activations,
        }  # fmt: skip
        layers = [self._layer(number, step) for number, step in enumerate(plan.steps) if self._has_weight(step)]
        return Narrowing(
            groups=[(len(group.cells), group.cells.shape[1]) for group in self.channels.groups],
            sizes=[list(size) for size in self.sizes],
            totals={name: _terms(total) for name, total in totals.items()},
            layers=layers,
        )

    def _extent(self, row: Ids) -> Extent:
        """The size of an axis, told from the members of its entries (of one row, where it has several)."""
        group_of = self.channels.group_of
        members, counts = np.unique(row, return_counts=True)
        known = dict(zip(members.tolist(), counts.tolist(), strict=True))
        groups = group_of[members]
        size = [int(counts[groups == FIXED].sum())]
        for group in sorted(set(groups[groups != FIXED].tolist())):
            each = sum(known.get(first, 0) for first in self.channels.groups[group].cells[:, 0].tolist())
            size += [group, each]
        if len(size) == 1:
            return size[0]
        number = self.sizes.setdefault(tuple(size), len(self.sizes))
        return Polynomial({(number,): 1})

    def _value(self, name: str) -> tuple[Extent, ...]:
        """The shape of a value for one image."""
        shape: list[Extent] = list(self.channels.plan.shapes[name])
        for block in self.channels.values.get(name, ()):
            shape[block.axes[-1]] = self._extent(block.ids.reshape(-1, block.ids.shape[-1])[0])
        return tuple(shape)

    def _operand(self, number: int, position: int) -> tuple[Extent, ...]:
        """The shape of an operand of a step; () for one that is left out."""
        name = self.channels.plan.steps[number].inputs[position]
        if name is None:
            return ()
        if name not in self.channels.plan.constants:
            return self._value(name)
        uses = self.channels.uses_at.get((number, position), [])
        view = next((use.view for use in uses if use.view is not None), None)
        shape: list[Extent] = list(view or self.channels.plan.shapes[name])
        for use in uses:
            axis = use.axes[-1]
            assert axis is not None
            shape[axis] = self._extent(use.ids.reshape(-1, use.ids.shape[-1])[0])
        return tuple(shape) if view is None else (_product(tuple(shape[:2])), *shape[2:])

    def _stored(self) -> tuple[Polynomial, Polynomial]:
        """Numbers of trained values and of running statistics. A constant that several functions share counts once."""
        plan, shared = self.channels.plan, set()
        parameters, statistics = polynomial(0), polynomial(0)
        _, absorbed = biases_of(plan)
        for number, step in enumerate(plan.steps):
            for position, name in enumerate(step.inputs):
                constant = plan.constants.get(str(name))
                if constant is None or constant.dtype.kind != "f" or constant.ndim == 0:
                    continue
                shape = self._operand(number, position)
                if step.op == "GroupNormalization":
                    shape = self._value(step.outputs[0])[1:2]
                if step.op == "BatchNormalization" and position in STATISTICS:
                    statistics += _product(shape)
                    continue
                if step.op not in MODULES and number not in absorbed:
                    key = (name, *(tuple(polynomial(size).terms.items()) for size in shape))
                    if key in shared:
                        continue
                    shared.add(key)
                parameters += _product(shape)
        return parameters, statistics

    def _has_weight(self, step: Step) -> bool:
        return step.op in WEIGHTED and any(name in self.channels.plan.constants for name in step.inputs[:2])

    def _layer(self, number: int, step: Step) -> LayerChannels:
        plan = self.channels.plan
        position, weight = next((at, str(name)) for at, name in enumerate(step.inputs[:2]) if name in plan.constants)
        stored = weight
        while stored.endswith("/"):  # the importer computed it from the weight of this name
            stored = stored[:-1].rpartition("/")[0]
        name = stored.removesuffix(".weight") if stored.endswith(".weight") else step.name or stored
        made = [use for use in self.channels.uses_at.get((number, position), []) if use.role == "out"]
        axis = 1 if step.op.startswith("Conv") else -2 if position == 0 else -1
        extent = self._value(step.outputs[0])[axis]
        if isinstance(extent, Polynomial):
            ((number_of_size,),) = extent.terms
            return LayerChannels(name=readable(name), size=[number_of_size])
        members = [member for use in made for member in use.ids.ravel().tolist()]
        because = next((self.channels.reasons[member] for member in members if member in self.channels.reasons), None)
        because = because or self.channels.whole.get((number, position))
        return LayerChannels(name=readable(name), size=[-1, extent], because=because or "its input keeps all channels")


def _product(shape: tuple[Extent, ...]) -> Polynomial:
    found = polynomial(1)
    for extent in shape:
        found = found * extent
    return found


def _terms(total: Polynomial) -> list[list[int]]:
    return [[factor, *sizes] for sizes, factor in total.terms.items() if factor]
