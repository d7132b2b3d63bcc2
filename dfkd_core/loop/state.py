"""Run: one distillation in progress. What changes is in four objects with verbs, and in the counters.

images    makes and holds the images, and mixes student batches    (image_sources)
student   is updated on them, and averaged                         (student)
memory    replays what the synthesizer made before                 (dfkd_core/memories)
judge     holds images out, scores students, publishes the best    (judge)

The state is exact at every safe point (`dfkd_core.pulse`); `position` counts which pieces of the round are done.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from dfkd_core.loop.counters import Counters
from dfkd_core.loop.image_sources import ImageSources
from dfkd_core.loop.judge import Judge
from dfkd_core.loop.position import Position
from dfkd_core.loop.schedule import Schedule
from dfkd_core.loop.student import StudentTrainer
from dfkd_core.memories import Memory, build_memory
from dfkd_core.networks.hooks import hooked
from dfkd_core.networks.precision import Engine
from dfkd_core.networks.teacher import Teacher
from dfkd_core.planning.fallback import fallback_options
from dfkd_core.pulse import Pulse
from dfkd_core.rng import Streams
from dfkd_core.spec.config import DistillConfig


@dataclass(slots=True)
class Run:
    """Holds the parts of a run, writes them into a checkpoint's state, and restores them from it."""

    config: DistillConfig
    schedule: Schedule
    streams: Streams
    counters: Counters
    teacher: Teacher  # computes in the run's precision
    fp32_teacher: Teacher  # the same network in fp32; it labels held-out images
    images: ImageSources
    student: StudentTrainer
    memory: Memory
    judge: Judge
    pulse: Pulse
    position: Position
    curve: list[dict[str, Any]] = field(default_factory=list)  # one entry for each evaluation
    losses: dict[str, float] = field(default_factory=dict)  # of the last whole round
    done: bool = False
    _draws: dict[str, Any] = field(default_factory=dict)  # what `rewind` restores

    @property
    def evaluation_due(self) -> bool:
        """Whether the student has to be evaluated before the next round."""
        before, after = self.counters.evaluated_steps, self.counters.steps
        return self.position.between_rounds and before < after and self.schedule.evaluates(before, after)

    def mark(self) -> None:
        """Remember the random draws and the counts of this safe point."""
        self._draws = {
            "streams": self.streams.state(),
            "counters": self.counters.state(),
            "work": self.pulse.state(),
            "global_draws": torch.get_rng_state(),
        }

    def rewind(self) -> None:
        """Go back to the latest safe point. A piece that was abandoned has changed nothing but draws and counts."""
        elapsed_seconds = self.counters.elapsed_seconds
        self._restore_draws(self._draws)
        self.counters.elapsed_seconds = elapsed_seconds

    def _restore_draws(self, state: Mapping[str, Any]) -> None:
        self.streams.restore(state["streams"])
        self.counters.restore(state["counters"])
        self.pulse.restore(state["work"])
        torch.set_rng_state(state["global_draws"])

    def take_over(self, method: str) -> None:
        """Continue with another method, which warms up first; nothing else changes."""
        options = fallback_options(self.config, method)
        self.config = self.config.model_copy(update={"method": method, "method_options": options, "fallback": None})
        self.images.use_method(self.config)
        self.position.begin_round()
        self.memory.on_generator_update(self.images.synthesizer)

    def extend(self) -> None:
        """Continue a run that was restored from a run with another budget; the elapsed seconds start at zero."""
        self.done = self.done and self.counters.steps >= self.schedule.total_steps
        self.counters.elapsed_seconds = 0.0

    def state(self) -> dict[str, Any]:
        """Return the run as a tree for `checkpoint`. The keys are fixed, so that files of earlier versions resume.

        Of a run that is done, images that can be drawn again are left out: only its continuation needs them.
        """
        return {
            **self.images.state(leave_out=self.done),
            **self.student.state(),
            **self.judge.state(),
            "memory": self.memory.state(),
            "position": self.position.state(),
            "streams": self.streams.state(),
            "counters": self.counters.state(),
            "work": self.pulse.state(),
            "curve": self.curve,
            "losses": self.losses,
            "global_draws": torch.get_rng_state(),
            "done": self.done,
            "method": self.config.method,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from the `state` of an earlier run."""
        if state["method"] != self.config.method:  # a fallback had taken over
            self.take_over(state["method"])
        self.images.restore(state)
        self.student.restore(state)
        self.judge.restore(state)
        self.memory.restore(state["memory"])
        self.position.restore(state["position"])
        self.curve, self.losses = list(state["curve"]), dict(state["losses"])
        self.done = state["done"]
        self._restore_draws(state)  # last: parts that are restored may draw


def build_run(teacher: Teacher, student: nn.Module, config: DistillConfig, *, pulse: Pulse | None = None) -> Run:
    """Build a run at its start. The student is trained in place on its device; the teacher is moved to that device."""
    device, pulse = next(student.parameters()).device, pulse or Pulse()
    engine = Engine(config.compute, pulse)
    fp32_teacher = teacher.to(device).with_precision(engine.in_fp32())
    teacher = fp32_teacher if engine.plain else fp32_teacher.with_precision(engine)
    for network in (teacher.network, student):
        engine.to_channels_last(network, device)
    streams, counters = Streams(config.seed), Counters()
    images = ImageSources(config, teacher, streams=streams, counters=counters, device=device)
    memory = build_memory(config, teacher, streams=streams, device=device)
    memory.on_generator_update(images.synthesizer)
    return Run(
        config=config,
        schedule=Schedule.of(config),
        streams=streams,
        counters=counters,
        teacher=teacher,
        fp32_teacher=fp32_teacher,
        images=images,
        student=StudentTrainer(student, teacher, images, config, streams=streams),
        memory=memory,
        judge=Judge(student, fp32_teacher, config.steadiness, streams=streams, relabels=teacher is not fp32_teacher),
        pulse=pulse,
        position=Position(pulse),
    )


@contextmanager
def seeded_global_draws(seed: int) -> Iterator[None]:
    """Seed torch's global generator, from which dropout draws, and restore the caller's generator afterwards."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


@contextmanager
def counting_teacher_images(run: Run) -> Iterator[None]:
    """Count every image that goes forward through the teacher."""

    def count(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        run.counters.teacher_images += len(inputs[0])

    teachers = {run.teacher, run.fp32_teacher, run.images.synthesizer.asked or run.teacher}
    with hooked(teacher.register_forward_pre_hook(count) for teacher in teachers):
        yield
