"""What the loop and the inspection ask of the options of every method and every memory (torch-free)."""

from typing import Annotated, ClassVar

from pydantic import Field

from dfkd_core.options.field_types import Frozen
from dfkd_core.options.passes import Direction, Network, Passes, Rehearsal, passes
from dfkd_core.options.published import Presets

Shape = tuple[int, int, int]  # (C, H, W)

HALF_SIZE = "half-size"
"""What a teacher of large images offers that also takes images of half the height and width."""


class _MenuOptions(Frozen):
    """One entry of the menu: the fields of the class are what a request may set."""

    presets: ClassVar[Presets] = {}
    """Preset name to the settings that lie under a request's own. A method's preset is a tree of distillation
    settings; a memory's preset is a tree of its options, used where the method's preset has another memory."""

    needs: ClassVar[frozenset[str]] = frozenset()
    """What the teacher must offer with any settings: "batchnorm", "features"."""

    implementation: ClassVar[str] = ""
    """Where the code lies if there is no `methods/NAME.py` or `memories/NAME.py` with the name in the spec, as
    "package.module:attribute". The attribute is called with (options, teacher, *, streams, device)."""

    def needed(self) -> frozenset[str]:
        """Return what the teacher must offer with these settings."""
        return self.needs


class SynthesisOptions(_MenuOptions):
    """The options that every method has."""

    gives: ClassVar[frozenset[str]] = frozenset()
    """What a memory may ask of the method: "generator", a network that persists from round to round."""

    optimises_images: ClassVar[bool] = False
    """True if an update makes `batch_size` images, each of which is sampled once. A generator makes any number."""

    batch_size: Annotated[int, Field(ge=2, le=8192)] = Field(64, description="Images per update of the synthesizer.")
    updates_per_round: Annotated[int, Field(ge=1, le=1000)] = Field(
        1, description="Updates of the synthesizer per round."
    )
    warmup_rounds: Annotated[int, Field(ge=0, le=100_000)] = Field(
        20, description="Rounds before the first student update; without the student's feedback."
    )
    restart_rounds: Annotated[int, Field(ge=0, le=1_000_000)] = Field(
        0, description="Teaching rounds after which the synthesizer starts anew from random weights; 0: never."
    )

    def update_passes(self, shape: Shape, *, feedback: bool) -> list[Passes]:
        """Return the passes of one update for images of `shape`; with `feedback` the student takes part in it."""
        return [passes(Network.TEACHER, Direction.TO_INPUT, self.batch_size)]

    def feedback_images(self, shape: Shape) -> int:
        """Return how many images the student sees for each image of an update, with a gradient; 0 without feedback."""
        return 1 if getattr(self, "adv_weight", 0.0) else 0

    def kept_values(self, shape: Shape) -> int:
        """Return how many values a gradient keeps of an image besides those of networks."""
        return 0

    @property
    def inserts_batchnorm(self) -> bool:
        """True if the method puts BatchNorms into the teacher that it inverts; see `networks.pseudo_statistics`."""
        return False

    def start_passes(self) -> list[Passes]:
        """Return the passes that the method needs once, before its first update."""
        return []

    def start_drawn(self) -> float:
        """Return how many images a program draws for those, counted as in `update_drawn`."""
        return 0.0

    def update_drawn(self) -> float:
        """Return how many images a program draws in one update, counted in pictures of shapes that take as long."""
        return 0.0

    def sample_passes(self, count: int) -> list[Passes]:
        """Return the passes that make `count` fresh images, without the teacher's labels for them."""
        return []


class ReplayOptions(_MenuOptions):
    """The options that every memory has: none."""

    def run_passes(self, rehearsal: Rehearsal, offers: frozenset[str]) -> list[Passes]:
        """Return the passes of the memory in a whole run; the teacher offers `offers`. Most memories need none."""
        return []

    def largest_batch(self, replayed: int) -> int:
        """Return the most images that pass the memory's own networks at once, if it replays `replayed` images."""
        return 0

    needs_of_method: ClassVar[frozenset[str]] = frozenset()
    """What the method must give, see `SynthesisOptions.gives`."""
