"""What is said where a request for an export names code or weights that are not what they should be."""

from pathlib import Path
from typing import Any

import pytest
import torch

from dfkd_core.errors import DfkdError
from dfkd_core.exporting.request import ExportRequest
from dfkd_core.exporting.teacher import export_teacher

NET = """
from torch import nn


class Net(nn.Module):
    def __init__(self, classes: int = 10):
        super().__init__()
        self.head = nn.Linear(12, classes)

    def forward(self, images):
        return self.head(images.flatten(1))
"""
SHAPE = {"input_shape": [3, 2, 2]}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The present folder, with the code of a network, weights of seven classes, and a whole network as a pickle."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)  # the export adds the folder of the code; this takes it away in the end
    (tmp_path / "my-net.py").write_text(NET)
    torch.save({"head.weight": torch.zeros(7, 12), "head.bias": torch.zeros(7)}, "best.ckpt")
    torch.save(torch.nn.Linear(12, 7), "whole.pt")
    return tmp_path


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"source": "my-net.py:Net"}, "the shape of one image is not known"),
        ({"source": "my-net.py:Nett", **SHAPE}, "has no Nett There: Net."),
        ({"source": "none.py:Net", **SHAPE}, "there is no file none.py"),
        (
            {"source": "my-net.py:Net", "arguments": {"clases": 7}, **SHAPE},
            "takes other arguments: got an unexpected keyword argument 'clases'",
        ),
        (
            {"source": "my-net.py:Net", "weights": Path("best.ckpt"), **SHAPE},
            "2 of another shape: head.weight has shape [7, 12], not [10, 12]",
        ),
        ({"source": "my-net.py:Net", "weights": Path("whole.pt"), **SHAPE}, "which is no weights"),
        ({"source": "my-net.py", **SHAPE}, "it is no checkpoint, or more than weights"),
    ],
)
def test_what_is_wrong_is_told_and_no_file_is_written(place: Path, asked: dict[str, Any], told: str) -> None:
    request = ExportRequest.model_validate({"output": place / "never", **asked})
    with pytest.raises(DfkdError) as refused:
        export_teacher(request)
    assert told in f"{refused.value} {refused.value.hint or ''}"
    assert not (place / "never").exists()
