"""Rounds: how many rounds of each kind a run has, by arithmetic alone. The loop reads the same fixed numbers."""

from dataclasses import dataclass

from dfkd_core.spec.config import DistillConfig

WARMUP_DRAWS = 2  # rounds of a warm-up that draw procedural images: enough to begin with
HELD_OUT_SHARE = 1 / 8  # share of a round's fresh images that is held out
LEAST_HELD_OUT = 3  # of them, at least
PROCEDURAL_CHUNK = 512  # procedural images drawn, labelled and stored at a time
PROCEDURAL_HELD_OUT = 4  # one of this many new procedural images may be held out
SNAPSHOT_ROUNDS = 20  # rounds between two snapshots of a healthy synthesizer
SNAPSHOTS = 2  # number of kept snapshots; a collapse is noticed late, so only the older snapshot is safe
AUDIT_PART = 3  # one of this many held-out images goes to the audit set, the others to the probe
RECENT_SHARE = 4  # one of so many images of a full probe or audit set is one of the newest
COSTLY_AUDIT = 256  # number of images to which an audit set is completed if each image is optimised
BATCHNORM_BATCHES = 8  # of training images, from which an evaluation estimates the average's statistics
BATCHNORM_BATCH_SIZE = 128


@dataclass(frozen=True, slots=True)
class Rounds:
    """The rounds of a run that neither collapses nor falls back nor runs out of time."""

    warmup: int  # before the first student update, and again after each restart
    teaching: int  # with student updates
    synthesizing: int  # of the teaching rounds, those in which the synthesizer learns
    restarts: int  # of the synthesizer
    drawing: int  # that draw procedural images
    evaluations: int

    @staticmethod
    def of(config: DistillConfig) -> "Rounds":
        """Return the rounds of a run."""
        options, steps, updates = config.method_options, config.budget.steps, config.training.updates_per_round
        teaching, ends = _up(steps, updates), consolidation_start(config)
        every = options.restart_rounds
        restarts = (ends - 1) // (every * updates) if every and ends else 0
        return Rounds(
            warmup=options.warmup_rounds * (1 + restarts),
            teaching=teaching,
            synthesizing=min(teaching, _up(ends, updates)),
            restarts=restarts,
            drawing=teaching + min(options.warmup_rounds, WARMUP_DRAWS) * (1 + restarts),
            evaluations=_evaluations(steps, updates, evaluation_interval(config)),
        )


def consolidation_start(config: DistillConfig) -> int:
    """Return the number of student updates after which the synthesizer is frozen."""
    return config.budget.steps - int(config.budget.steps * config.steadiness.consolidation)


def evaluation_interval(config: DistillConfig) -> int:
    """Return the number of student updates between two evaluations."""
    return max(1, config.budget.steps // config.steadiness.evaluations)


def chunks(count: int, most: int | None = None) -> list[int]:
    """Return how `count` procedural images are divided into batches, which have at most `most` images if it is set."""
    size = min(PROCEDURAL_CHUNK, most or PROCEDURAL_CHUNK)
    whole, rest = divmod(count, size)
    return [size] * whole + [rest] * (rest > 0)


def held_out_of(fresh: int) -> int:
    """Return how many of `fresh` images of the synthesizer are held out for probe and audit set."""
    return max(LEAST_HELD_OUT, round(fresh * HELD_OUT_SHARE))


def _evaluations(steps: int, updates: int, interval: int) -> int:
    """Return the number of rounds that cross a multiple of the interval, and the last round if it crosses none."""
    teaching = _up(steps, updates)
    if updates >= interval:
        return teaching
    before_last = (teaching - 1) * updates
    return steps // interval + (before_last // interval == steps // interval)


def _up(count: int, size: int) -> int:
    """Return the number of parts of `size` that cover `count`."""
    return -(-count // size)
