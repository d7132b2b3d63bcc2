"""The time that a job will take: its work, phase by phase, at the measured speed of a worker (torch-free)."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from dfkd_core.architectures.cost import NetworkCost
from dfkd_core.options.passes import Direction, Network, Passes
from dfkd_core.planning.network_costs import batch_seconds, cost_of_size
from dfkd_core.planning.precision_choice import computed_on
from dfkd_core.planning.work import PhaseWork, RunFacts, Work, work_of
from dfkd_core.planning.worker_speed import Pass, WorkerSpeed
from dfkd_core.progress import Phase
from dfkd_core.spec.config import DistillConfig

PREPARE, VERIFY = 1.3, 0.2  # besides the networks, in units of the time in which a runner loads its libraries
PIXEL_PASSES = 6  # passes over the pixels in a step of an inversion: shift, variation, clamp, Adam
COMPARED = 4  # reading the moments of so many values takes as long as comparing a value with that of the teacher


@dataclass(frozen=True, slots=True)
class JobFacts:
    """What a forecast follows from, beside the spec."""

    run: RunFacts
    teacher: NetworkCost
    student: NetworkCost


@dataclass(frozen=True, slots=True)
class Continuation:
    """What a job that continues another one begins with."""

    steps: int  # that are done
    draws_again: bool  # the checkpoint leaves the procedural images out, so they are drawn once more


@dataclass(frozen=True, slots=True)
class Forecast:
    """The work of a job and the seconds of each phase of it."""

    work: Work
    seconds: Mapping[Phase, float]

    @property
    def total_seconds(self) -> float:
        """Seconds of the whole job."""
        return sum(self.seconds.values())

    @property
    def training_seconds(self) -> float:
        """Seconds of the loop, without preparation, audit and files."""
        return sum(self.seconds[phase.phase] for phase in self.work.training)

    @property
    def first_student_seconds(self) -> float:
        """Seconds of the shortest job that delivers a student.

        They are those of the preparation, the warm-up, the rounds up to one evaluation, and the student's files.
        """
        evaluations = max(1, self.work.phase(Phase.EVALUATION).units)
        warm_up = self.seconds.get(Phase.WARM_UP, 0.0)
        around = sum(self.seconds[phase] for phase in (Phase.PREPARE, Phase.EXPORT, Phase.VERIFY))
        return around + warm_up + (self.training_seconds - warm_up) / evaluations


def forecast(config: DistillConfig, facts: JobFacts, speed: WorkerSpeed) -> Forecast:
    """Return the seconds of a job on a worker of this speed, whatever the time limit of the spec.

    A precision that the spec leaves open is the one that such a worker chooses.
    """
    config = computed_on(config, speed, (facts.teacher, facts.student))
    work = work_of(config, facts.run)
    model = _Model(config, facts, work, speed)
    return Forecast(work, {phase.phase: model.seconds(phase) for phase in work.phases})


def forecast_rest(config: DistillConfig, facts: JobFacts, speed: WorkerSpeed, before: Continuation) -> Forecast:
    """Return the seconds of a job that continues another one: what is left of the phases of the loop.

    The preparation counts the drawing of the procedural images that the checkpoint leaves out.
    """
    whole = forecast(config, facts, speed)
    if not before.steps:
        return whole
    budget = config.budget.model_copy(update={"steps": before.steps})
    done = forecast(config.model_copy(update={"budget": budget}), facts, speed)
    seconds = dict(whole.seconds)
    for phase in whole.work.training:
        seconds[phase.phase] = max(0.0, whole.seconds[phase.phase] - done.seconds.get(phase.phase, 0.0))
    if before.draws_again:
        drawn = done.work.phase(Phase.PROCEDURAL).drawn
        seconds[Phase.PREPARE] += drawn * whole.work.pixels / speed.passes[Pass.DRAWN]
    return replace(whole, seconds=seconds)


def costs_of_networks(config: DistillConfig, facts: JobFacts, work: Work) -> dict[Network, NetworkCost]:
    """Return what an image costs each network of the run."""
    widths = {
        Network.GENERATOR: getattr(config.method_options, "width", 1),
        Network.ENCODER: getattr(config.memory_options, "width", 1),
        Network.DECODER: getattr(config.memory_options, "width", 1),
    }
    found = {network: cost_of_size(size, width=widths.get(network, 1)) for network, size in work.sizes.items()}
    return found | {Network.TEACHER: facts.teacher, Network.STUDENT: facts.student}


class _Model:
    """The seconds of each phase of one job on one worker."""

    def __init__(self, config: DistillConfig, facts: JobFacts, work: Work, speed: WorkerSpeed) -> None:
        self._config = config
        self._facts = facts
        self._sizes = work.sizes
        self._pixels = work.pixels
        self._speed = speed
        self._costs = costs_of_networks(config, facts, work)
        self._faster = speed.bf16_factor if config.compute.precision == "bf16" else 1.0

    def seconds(self, work: PhaseWork) -> float:
        """Return the seconds of one phase."""
        rates, pixels = self._speed.passes, self._pixels
        drawn = work.drawn * pixels / rates[Pass.DRAWN] + work.augmented * pixels / rates[Pass.AUGMENTED]
        return sum(self._passes(each, work.phase) for each in work.passes) + drawn + self._besides(work)

    def _passes(self, passes: Passes, phase: Phase) -> float:
        matches = passes.network is Network.TEACHER and passes.direction is Direction.TO_INPUT
        seconds = batch_seconds(
            self._costs[passes.network],
            passes,
            self._speed,
            reads_moments=matches and self._reads_moments(phase),
            multiply_faster=self._faster,
        )
        return seconds + self._optimised(passes)

    def _reads_moments(self, phase: Phase) -> bool:
        config, refines = self._config, phase is Phase.REFINEMENT
        weighing = config.procedural.refinement if refines else config.method_options
        inserted = config.method_options.inserts_batchnorm and not refines
        return (inserted or "batchnorm" in self._facts.run.offers) and getattr(weighing, "bn_weight", 0.0) > 0

    def _optimised(self, passes: Passes) -> float:
        """Return the seconds of the optimiser: of the weights once a batch, of the pixels once an image."""
        rates = self._speed.passes
        if passes.direction is Direction.TO_WEIGHTS:
            size = self._sizes[passes.network]
            calls = 2 * size.operations * self._speed.call_seconds
            return passes.batches * (size.parameters / rates[Pass.ADAM] + calls)
        if passes.direction is Direction.TO_INPUT and passes.network is Network.TEACHER:
            return passes.images * PIXEL_PASSES * self._pixels / rates[Pass.ACTIVATION]
        return 0.0

    def _besides(self, work: PhaseWork) -> float:
        """Return the seconds of what is no pass through a network."""
        speed = self._speed
        fixed = {Phase.PREPARE: PREPARE * speed.start_seconds, Phase.VERIFY: VERIFY * speed.start_seconds}
        fixed[Phase.EXPORT] = speed.export_seconds
        if work.phase is Phase.STUDENT:
            gathered = work.units * self._config.training.batch_size * self._pixels
            student = self._costs[Network.STUDENT]
            values = work.compared * (student.norm_elements or student.elements // 2)  # what convolutions put out
            return gathered / speed.passes[Pass.GATHERED] + values * COMPARED / speed.passes[Pass.MOMENTS]
        return fixed.get(work.phase, 0.0)
