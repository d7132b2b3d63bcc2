"""The nominal machine: two CPU cores in fp32, described by fixed rates, and the minutes that each effort takes there.

The numbers of a job follow from these constants and from facts of teacher, student and images, never from the worker
that will run it. So the same request becomes the same spec on every deployment of one release.
"""

import math
from collections.abc import Sequence

from dfkd_core.planning.speed import Speed
from dfkd_core.planning.work import RunFacts
from dfkd_core.spec.config import Effort

NOMINAL = Speed(
    macs_per_second=1.5e11,
    bytes_per_second=2.5e10,
    seconds_per_call=1e-4,
    seconds_per_drawn_value=2e-8,
    seconds_per_augmented_value=4.5e-8,
    seconds_per_run=8.0,
)
"""About half of the rates that `python -m benchmarks.planning.nominal_machine` found on two cores of an AMD EPYC with
AVX-512, because networks are not all that a run computes. An augmented value includes what gathers a batch. Short runs
of `python -m benchmarks.planning.effort_time` agree with it: of a LeNet-5 and of a ResNet-20 at 32 pixels."""

SECONDS: dict[Effort, float] = {"quick": 180.0, "standard": 900.0, "thorough": 3600.0}
"""What an effort takes for images of 28 to 48 pixels, whatever the teacher."""

LEAST_UPDATES: dict[Effort, int] = {"quick": 250, "standard": 600, "thorough": 1500}
"""Student updates below which batches become smaller instead."""

LEAST_AUDIT: dict[Effort, int] = {"quick": 64, "standard": 128, "thorough": 256}
"""Images of the audit set, at least."""

SMALL_PIXELS = 48 * 48  # up to here a costly teacher gets no more time than a cheap one
LARGE_PIXELS = 96 * 96  # from here on it gets the full share
LEAST_PIXELS = 28 * 28  # with fewer pixels an effort takes less time
LEAST_SHARE = 0.1
SHARE_OF_GIGAMACS: dict[Effort, float] = {"quick": 2.2, "standard": 2.0, "thorough": 1.6}
"""More time for each thousand million multiply-adds of a teacher of large images."""

MOST_SHARE = 24.0


def are_large(shape: Sequence[int]) -> bool:
    """Return whether images (C, H, W) are so large that an effort takes longer for a costly teacher."""
    return math.prod(shape[1:]) > SMALL_PIXELS


def nominal_seconds(effort: Effort, facts: RunFacts) -> float:
    """Return the seconds that an effort takes on the nominal machine for this teacher.

    Nets of large images get more time, in proportion to what they cost: a ResNet-18 at 224 pixels four to five times, a
    ResNet-50 eight to ten times as much as a net of 48 pixels.
    """
    pixels = facts.shape[1] * facts.shape[2]
    if pixels < LEAST_PIXELS:
        return SECONDS[effort] * max(LEAST_SHARE, pixels / LEAST_PIXELS)
    large = min(1.0, max(0.0, (pixels - SMALL_PIXELS) / (LARGE_PIXELS - SMALL_PIXELS)))
    return SECONDS[effort] * min(MOST_SHARE, 1 + large * SHARE_OF_GIGAMACS[effort] * facts.teacher.macs / 1e9)
