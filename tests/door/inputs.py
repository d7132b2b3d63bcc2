"""All inputs, in the order of the table."""

from tests.door import files, identity, names, onnx_files, routes, safetensors_files, specs, transport
from tests.door.door import Input
from tests.door.table import TABLE

_MODULES = (identity, transport, names, specs, files, safetensors_files, onnx_files, routes)
_ORDER = {name: place for place, name in enumerate(TABLE)}

INPUTS: tuple[Input, ...] = tuple(
    sorted((entry for module in _MODULES for entry in module.INPUTS), key=lambda entry: _ORDER[entry.row])
)
