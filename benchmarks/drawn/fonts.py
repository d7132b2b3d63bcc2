"""The fonts of the system, by what they can write."""

import hashlib
import subprocess
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from PIL import ImageFont

UNUSUAL = ("Math", "ExtraLight")  # of formulas, or too thin to be seen in small print


@dataclass(frozen=True, slots=True)
class Fonts:
    """Files of fonts that write English, and of fonts that write Chinese, each sorted by name."""

    latin: tuple[Path, ...]
    chinese: tuple[Path, ...]

    def digest(self) -> str:
        """Return 16 digits that change with the set of fonts and with the bytes of any of them."""
        found = hashlib.sha256()
        for path in (*self.latin, *self.chinese):
            found.update(path.name.encode())
            found.update(hashlib.sha256(path.read_bytes()).digest())
        return found.hexdigest()[:16]


def system_fonts() -> Fonts:
    """Return the fonts that fontconfig knows. Fonts that write Chinese are not used for English lines."""
    chinese = _files(":lang=zh")
    latin = [path for path in _files(":lang=en") if path not in chinese]
    usual = [path for path in latin if not any(word in path.name for word in UNUSUAL)]
    if not usual or not chinese:
        raise SystemExit("fonts for English and Chinese are missing; see benchmarks/drawn/__init__.py")
    return Fonts(latin=tuple(usual), chinese=tuple(chinese))


def _files(pattern: str) -> list[Path]:
    answer = subprocess.run(["fc-list", "--format=%{file}\n", pattern], capture_output=True, text=True, check=True)
    names = {Path(line) for line in answer.stdout.splitlines() if line}
    return sorted((path for path in names if path.suffix in {".ttf", ".ttc", ".otf"}), key=lambda path: path.name)


@lru_cache(maxsize=512)
def font(path: Path, size: int) -> ImageFont.FreeTypeFont:
    """Return a font whose letters are `size` pixels high; of a collection, the first font."""
    return ImageFont.truetype(path, size)
