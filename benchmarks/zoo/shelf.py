"""What an exporter leaves in the folder for the reading, and the command line that all exporters have.

It imports nothing of this project: an exporter runs in an environment of its own, from the root of the repository:

    ENVIRONMENT/bin/python -m benchmarks.zoo.timm_export FOLDER [--families resnet18 levit] [--ways dynamo] [--list]

For each family (a net of the package, at one size) and way (an exporter with its options) it leaves in the folder

    FAMILY.WAY.onnx   the export
    FAMILY.WAY.npz    what the net itself says, for each number N of images: `imagesN` (N, C, H, W), float32, as the
                      network takes them apart from their layout; `logitsN` or, where the net ends in a softmax,
                      `probabilitiesN`; and where the package gives gradients `weightsN`, and as `gradientN` that of
                      the sum of the weighted logits (or probabilities) at the images
    FAMILY.WAY.json   `teacher` of a job's spec, where the file alone does not say enough (layout, shape, output)
    FAMILY.WAY.txt    instead of all of them: how the exporter itself failed

`python -m benchmarks.zoo.reading FOLDER` reads the folder in the project's environment.
"""

import argparse
import json
import logging
import os
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TextIO

SUFFIXES = (".onnx", ".npz", ".json", ".txt")
Write = Callable[[str, str, Path], None]  # family, way, path of the export; it writes the .npz beside it


def beside(path: Path, suffix: str) -> Path:
    """Return the file of the same export with another of the suffixes; the name may have dots of its own."""
    return path.with_name(path.stem + suffix)


def serve(doc: str | None, exports: Mapping[str, Sequence[str]], write: Write) -> None:
    """Export what the command line asks for; `exports` has the ways of each family, `write` makes one export."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--families", nargs="*", default=list(exports))
    parser.add_argument("--ways", nargs="*")
    parser.add_argument("--list", action="store_true", help="print families and their ways as JSON, export nothing")
    options = parser.parse_args()
    terminal = _terminal()
    if options.list or options.folder is None:
        print(json.dumps({family: list(ways) for family, ways in exports.items()}), file=terminal)
        return
    options.folder.mkdir(parents=True, exist_ok=True)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    for family in options.families:
        for way in exports[family]:
            if options.ways is None or way in options.ways:
                word = attempt(family, way, options.folder / f"{family}.{way}.onnx", write)
                print(f"{family:<28} {way:<12} {word}", file=terminal)


def attempt(family: str, way: str, path: Path, write: Write) -> str:
    """Make one export, or leave the traceback instead; returns a word on how it went."""
    for suffix in SUFFIXES:
        beside(path, suffix).unlink(missing_ok=True)
    try:
        write(family, way, path)
    except Exception as error:  # whatever a model or an exporter raises: their errors have no class in common
        for suffix in SUFFIXES:
            beside(path, suffix).unlink(missing_ok=True)
        beside(path, ".txt").write_text(traceback.format_exc())
        return f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
    return "written"


def _terminal() -> TextIO:
    """Return standard output for our own lines alone: what the exporters print, in C++ too, goes nowhere."""
    terminal = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return terminal
