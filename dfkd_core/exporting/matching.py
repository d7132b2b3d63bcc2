"""Puts the weights of a file into a network, under the network's own names."""

from collections.abc import Iterator, Mapping

from torch import Tensor, nn

from dfkd_core.errors import TeacherMismatch
from dfkd_core.inspection.named_teacher import differences, summary

_OPTIONAL = (".num_batches_tracked",)  # only training needs them


def load_into(network: nn.Module, weights: Mapping[str, Tensor]) -> list[str]:
    """Put weights into a network; return lines that say how their names were changed.

    A prefix that the network or the file has before all names is added or stripped. Tensors beside those under the
    prefix, such as those of a loss in a checkpoint of Lightning, are left out.

    Raises:
        TeacherMismatch: names or shapes differ; the error counts the differences and lists the first.
    """
    wanted = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    found, notes = _renamed(weights, wanted)
    shapes = {name: tuple(tensor.shape) for name, tensor in found.items()}
    problems = differences(wanted, shapes, optional=_OPTIONAL)
    if problems:
        raise TeacherMismatch(
            f"the weights are not those of this network: {summary(problems)}",
            hint="Give the network the arguments with which it was trained (--arg NAME=VALUE), or another --pick.",
        )
    network.load_state_dict(dict(found), strict=False)  # counters may be absent; everything else was compared above
    return notes


def _renamed(weights: Mapping[str, Tensor], wanted: Mapping[str, object]) -> tuple[Mapping[str, Tensor], list[str]]:
    """Return the weights under names of the network, if one prefix makes the difference; otherwise as they are."""
    needed = [name for name in wanted if not name.endswith(_OPTIONAL)]
    if not needed or all(name in weights for name in needed):
        return weights, []
    for prefix in _prefixes(needed[0], weights):
        inner = {name.removeprefix(prefix): tensor for name, tensor in weights.items() if name.startswith(prefix)}
        if all(name in inner for name in needed):
            others = [name for name in weights if not name.startswith(prefix)]
            left = f"; left out {len(others)} tensors beside them, such as {others[0]}" if others else ""
            return inner, [f"stripped {prefix} from {len(inner)} names{left}"]
    for prefix in _prefixes_of(needed[0], weights):
        outer = {prefix + name: tensor for name, tensor in weights.items()}
        if all(name in outer for name in needed):
            return outer, [f"put {prefix} before {len(outer)} names"]
    return weights, []


def _prefixes(name: str, weights: Mapping[str, Tensor]) -> Iterator[str]:
    """Yield what stands before `name` in names of the file."""
    yield from (known.removesuffix(name) for known in weights if known.endswith(f".{name}"))


def _prefixes_of(name: str, weights: Mapping[str, Tensor]) -> Iterator[str]:
    """Yield the beginnings of `name` after which a name of the file follows."""
    parts = name.split(".")
    heads = (".".join(parts[:count]) + "." for count in range(1, len(parts)))
    yield from (head for head in heads if name.removeprefix(head) in weights)
