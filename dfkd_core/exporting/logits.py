"""One tensor of logits out of what a network returns: a tensor, a mapping, a tuple, or an object with `logits`."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from dfkd_core.errors import TeacherInvalid


class Logits(nn.Module):
    """Wraps a network so that it returns one tensor (N, num_classes).

    `wanted` names one of several outputs: a key, an attribute, or a number. Without it, `logits` is taken, or the only
    tensor there is.
    """

    def __init__(self, network: nn.Module, wanted: str | int | None = None) -> None:
        super().__init__()
        self.network = network
        self.wanted = wanted

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (N, num_classes) of images (N, C, H, W)."""
        output = self.network(images)
        return output if isinstance(output, Tensor) and self.wanted is None else _chosen(output, self.wanted)


def _chosen(output: Any, wanted: str | int | None) -> Tensor:  # Any: whatever the user's network returns
    """Return the output that is wanted.

    Raises:
        TeacherInvalid: there is none of this name, or none is named and several could be meant.
    """
    named = _outputs(output)
    if wanted is None and "logits" in named:
        return named["logits"]
    if wanted is None and len(named) == 1:
        return next(iter(named.values()))
    if wanted is not None and str(wanted) in named:
        return named[str(wanted)]
    if not named:
        raise TeacherInvalid(
            f"the network returns a {type(output).__name__}, not logits",
            hint="Give a module whose forward returns one tensor (N, classes).",
        )
    listed = ", ".join(f"{name} {list(tensor.shape)}" for name, tensor in named.items())
    raise TeacherInvalid(
        f"the network has several outputs: {listed}"
        if wanted is None
        else f"of its outputs none is {wanted}: {listed}",
        hint="Name the one with the logits: logits=… in Python, --logits NAME on the command line.",
    )


def _outputs(output: Any) -> dict[str, Tensor]:  # Any: as above
    """Return the tensors of an output by name: keys, names of fields and attributes, or their numbers in a sequence."""
    if isinstance(output, Tensor):
        found: Mapping[Any, Any] = {0: output}
    elif isinstance(output, Mapping):
        found = output
    elif isinstance(output, tuple) and hasattr(output, "_fields"):
        found = dict(zip(output._fields, output, strict=True))
    elif isinstance(output, list | tuple):
        found = dict(enumerate(output))
    else:
        found = getattr(output, "__dict__", {})
    return {str(name): value for name, value in found.items() if isinstance(value, Tensor)}
