"""A network from the user's own code, which is imported and called here: the user's machine trusts it."""

import importlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from dfkd_core.errors import TeacherInvalid, TeacherMismatch

_SHOWN = 20  # differences that an error lists


def network_from(source: str, arguments: Mapping[str, Any]) -> nn.Module:
    """Run the code `package.module:name`: return the network that it is, or that it returns for `arguments`.

    Raises:
        TeacherInvalid: the name cannot be imported, or does not give a network.
    """
    module, _, name = source.partition(":")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise TeacherInvalid(
            f"{source} cannot be imported: {error}", hint="Run this where your package lies."
        ) from error
    if not isinstance(found, nn.Module):
        found = found(**arguments)
    if not isinstance(found, nn.Module):
        raise TeacherInvalid(f"{source} gives a {type(found).__name__}, not a torch.nn.Module")
    return found


def load_into(network: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Put weights into a network.

    Raises:
        TeacherMismatch: names or shapes differ; the error lists the first differences.
    """
    wanted = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    problems = [f"{name} is missing" for name in wanted if name not in weights and not name.endswith("_tracked")]
    problems += [f"{name} is not part of it" for name in weights if name not in wanted]
    problems += [
        f"{name} has shape {list(weights[name].shape)}, not {list(shape)}"
        for name, shape in wanted.items()
        if name in weights and tuple(weights[name].shape) != shape
    ]
    if problems:
        more = f" … and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise TeacherMismatch(f"the weights are not those of this network: {'; '.join(problems[:_SHOWN])}{more}")
    network.load_state_dict(
        dict(weights), strict=False
    )  # strict=False: counters may be absent; everything else was compared above


class Logits(nn.Module):
    """Wraps a network so that it returns one tensor, also where its output is a mapping or an object with `logits`."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (N, num_classes) of images (N, C, H, W)."""
        output = self.network(images)
        if isinstance(output, Mapping) and "logits" in output:
            output = output["logits"]
        elif hasattr(output, "logits"):
            output = output.logits
        if not isinstance(output, Tensor):
            raise TeacherInvalid(
                f"the network returns a {type(output).__name__}, not logits",
                hint="Name a function that returns a module whose forward gives one tensor (N, classes).",
            )
        return output
