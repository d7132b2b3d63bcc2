"""Run: everything that changes while a student is distilled, and how it is put into a checkpoint and taken out."""

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from dfkd_core.images.batch import Batch
from dfkd_core.images.procedural import ProceduralBank
from dfkd_core.images.reservoir import PixelCodec
from dfkd_core.loop.best_student import BestStudent
from dfkd_core.loop.collapse_guard import CollapseGuard
from dfkd_core.loop.ema import AveragedStudent
from dfkd_core.loop.probe import Probe
from dfkd_core.loop.schedule import Schedule
from dfkd_core.memories import Memory, build_memory
from dfkd_core.methods import Synthesizer, build_synthesizer
from dfkd_core.networks.feature_distillation import Transfer
from dfkd_core.networks.hooks import hooked
from dfkd_core.networks.precision import Engine
from dfkd_core.networks.teacher import Teacher
from dfkd_core.rng import Streams
from dfkd_core.spec.config import DistillConfig, Training

AVERAGE_SPAN = 0.05  # of the run, at most: the average must be able to follow the decay of the learning rate


@dataclass(slots=True)
class Counters:
    """What a run has spent, and how far it is."""

    rounds: int = 0  # of any kind
    warmup_rounds: int = 0  # since the generator started
    rounds_since_start: int = 0  # of the generator, warm-up not counted
    steps: int = 0  # student updates
    images_synthesized: int = 0
    teacher_images: int = 0  # images that went forward through the teacher
    rollbacks: int = 0
    rollbacks_in_a_row: int = 0
    elapsed_seconds: float = 0.0


@dataclass(slots=True)
class Run:
    """One distillation in progress."""

    config: DistillConfig
    schedule: Schedule
    teacher: Teacher
    fp32_teacher: Teacher  # the same, always in fp32: it labels what is held out
    student: nn.Module
    compiled_student: nn.Module  # the student as the run's engine computes it
    optimizer: torch.optim.Optimizer
    average: AveragedStudent
    ratchet: BestStudent
    synthesizer: Synthesizer
    memory: Memory
    probe: Probe
    audit: Probe
    procedural: ProceduralBank
    refined: ProceduralBank
    transfer: Transfer
    guard: CollapseGuard
    streams: Streams
    low: Tensor  # (1, C, 1, 1), lowest valid pixel of each channel
    high: Tensor
    device: torch.device
    counters: Counters = field(default_factory=Counters)
    fresh: list[Batch] = field(default_factory=list)  # of the last rounds, newest last
    remembered: list[Batch] = field(default_factory=list)
    good: list[dict[str, Any]] = field(default_factory=list)  # states of the healthy synthesizer, oldest first
    curve: list[dict[str, Any]] = field(default_factory=list)
    done: bool = False

    def state(self) -> dict[str, Any]:
        """The whole run as a tree; see `checkpoint`."""
        parts = {name: getattr(self, name).state() for name in _PARTS}
        return {
            **parts,
            "student": self.student.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "counters": {name: getattr(self.counters, name) for name in Counters.__slots__},
            "fresh": [[batch.images, batch.teacher_logits] for batch in self.fresh],
            "remembered": [[batch.images, batch.teacher_logits] for batch in self.remembered],
            "good": self.good,
            "curve": self.curve,
            "global_draws": torch.get_rng_state(),
            "done": self.done,
            "method": self.config.method,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue where `state` was taken."""
        if state["method"] != self.config.method:
            self.take_over(state["method"])
        for name in _PARTS:
            getattr(self, name).restore(state[name])
        self.student.load_state_dict(state["student"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.counters = Counters(**state["counters"])
        self.fresh = [self._batch(pair) for pair in state["fresh"]]
        self.remembered = [self._batch(pair) for pair in state["remembered"]]
        self.good = list(state["good"])
        self.curve = list(state["curve"])
        self.done = state["done"]
        torch.set_rng_state(state["global_draws"])

    def extend(self) -> None:
        """Go on with what was restored from a run with another budget: there is more to do, in seconds of its own."""
        self.done = self.done and self.counters.steps >= self.schedule.total_steps
        self.counters.elapsed_seconds = 0.0

    def take_over(self, method: str) -> None:
        """Go on with another method, by its defaults: it warms up first, and everything else stays as it is."""
        options = DistillConfig.model_validate({"method": method}).method_options
        self.config = self.config.model_copy(update={"method": method, "method_options": options, "fallback": None})
        self.synthesizer = build_synthesizer(self.config, self.teacher, streams=self.streams, device=self.device)
        self.memory.on_generator_update(self.synthesizer)
        self.guard = build_guard(self.config)
        self.good = [copy.deepcopy(self.synthesizer.state())]
        counters = self.counters
        counters.warmup_rounds = counters.rounds_since_start = counters.rollbacks_in_a_row = 0

    def valid(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) as student, probe and audit see them: in the valid pixel range, unless told not to."""
        return images.clamp(self.low, self.high) if self.config.training.valid_range else images

    def _batch(self, pair: list[Tensor]) -> Batch:
        return Batch(images=pair[0].to(self.device), teacher_logits=pair[1].to(self.device))


_PARTS = (
    *("average", "ratchet", "synthesizer", "memory", "probe", "audit"),
    *("procedural", "refined", "transfer", "guard", "streams"),
)


def build_run(teacher: Teacher, student: nn.Module, config: DistillConfig) -> Run:
    """A run at its start. The student is trained in place, on its own device, and moves the teacher there."""
    device = next(student.parameters()).device
    engine = Engine(config.compute)
    fp32_teacher = teacher.to(device)
    teacher = fp32_teacher if engine.plain else fp32_teacher.with_precision(engine)
    for network in (teacher.network, student):
        engine.to_channels_last(network, device)
    streams = Streams(config.seed)
    space = teacher.input_space
    low, high = space.bounds()
    codec = PixelCodec(low, high, torch.float16)
    steadiness, procedural = config.steadiness, config.procedural
    drawn = procedural.share > 0
    refined = drawn and procedural.refinement.share > 0
    student.requires_grad_(True)
    compiled_student = engine.wrap(student)
    synthesizer = build_synthesizer(config, teacher, streams=streams, device=device)
    memory = build_memory(config, teacher, streams=streams, device=device)
    memory.on_generator_update(synthesizer)
    return Run(
        config=config,
        schedule=Schedule.of(config),
        teacher=teacher,
        fp32_teacher=fp32_teacher,
        student=student,
        compiled_student=compiled_student,
        optimizer=build_optimizer(student, config.training),
        average=AveragedStudent(student, decay=average_decay(config)),
        ratchet=BestStudent(student, margin=steadiness.margin),
        synthesizer=synthesizer,
        good=[copy.deepcopy(synthesizer.state())],
        memory=memory,
        probe=Probe(steadiness.probe_size, num_classes=teacher.num_classes, shape=space.shape, codec=codec),
        audit=Probe(steadiness.audit_size, num_classes=teacher.num_classes, shape=space.shape, codec=codec),
        procedural=ProceduralBank(procedural, teacher, capacity=procedural.capacity * drawn, device=device),
        refined=ProceduralBank(procedural, teacher, capacity=procedural.refinement.capacity * refined, device=device),
        transfer=Transfer(compiled_student, teacher, config.training, features=drawn or synthesizer.optimises_images),
        guard=build_guard(config),
        streams=streams,
        low=low.to(device),
        high=high.to(device),
        device=device,
    )


def average_decay(config: DistillConfig) -> float:
    """Of the averaged student: as asked, or less where the average would span too much of a short run."""
    longest = 1 - 1 / max(1.0, AVERAGE_SPAN * config.budget.steps)
    return min(config.training.ema_decay, longest)


def build_guard(config: DistillConfig) -> CollapseGuard:
    """A guard that has seen nothing yet."""
    steadiness = config.steadiness
    return CollapseGuard(min_class_entropy=steadiness.min_class_entropy, min_diversity=steadiness.min_diversity)


def build_optimizer(student: nn.Module, training: Training) -> torch.optim.Optimizer:
    """The student's optimiser; its learning rate is set before every update."""
    if training.optimizer == "sgd":
        return torch.optim.SGD(
            student.parameters(),
            lr=training.learning_rate,
            momentum=training.momentum,
            weight_decay=training.weight_decay,
        )
    return torch.optim.Adam(student.parameters(), lr=training.learning_rate, weight_decay=training.weight_decay)


@contextmanager
def seeded_global_draws(seed: int) -> Iterator[None]:
    """Dropout draws from the global generator: seed it inside, and give the caller's back afterwards."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


@contextmanager
def counting_teacher_images(run: Run) -> Iterator[None]:
    """Count every image that goes forward through the teacher."""

    def count(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        run.counters.teacher_images += len(inputs[0])

    with hooked(teacher.register_forward_pre_hook(count) for teacher in {run.teacher, run.fp32_teacher}):
        yield
