"""Which images teach a narrowed copy of a large teacher: those of `benchmarks.large.pairs`' text direction.

    python -m benchmarks.image_kinds drawn marks-drawn-by-the-product inverted-from-marks --images 512 --updates 300

| KIND | images |
|---|---|
| drawn | lines of text, drawn as the test lines are, with another seed: what no distillation has |
| marks | lines of random strokes, set and photographed as lines of text are |
| shapes, scenes, marks-drawn-by-the-product | the product's procedural images of one kind |
| marks-refined | the product's marks after its refinement towards soft labels, with the default settings |
| inverted | images of the method that `auto` resolves to, with its options at effort `standard` |
| inverted-from-marks | the same, started from the product's marks instead of its shapes |
| inverted-relative | as inverted, but all BatchNorms count alike, whatever the scale of their values |

The student is cut, and learns from logits, features and blocks as in a job, with the weights and the schedule that
`auto` gives a run of so many updates; the teacher labels the augmented images, which are not mirrored. Agreement is
measured on lines of a seed of their own, which are neither learnt from nor the test lines. Each kind is written to the
results as it ends.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.drawn import lines
from benchmarks.drawn.fonts import system_fonts
from benchmarks.drawn.marks import marks_line
from benchmarks.hardware import describe_run
from benchmarks.large.pair_tasks import TASKS
from benchmarks.large.pairs import asked_spec, untrained_cut
from benchmarks.pair import RESULTS
from dfkd_core.images.augment import augment
from dfkd_core.images.procedural import ProceduralBank, procedural_images
from dfkd_core.inspection.input_space.of_file import inspect_with_input_space
from dfkd_core.inspection.resolve import resolve
from dfkd_core.loop.schedule import Schedule
from dfkd_core.loop.student import AveragedStudent, average_decay, build_optimizer, distillation_loss
from dfkd_core.methods import build_synthesizer
from dfkd_core.networks import losses
from dfkd_core.networks.batchnorm import Moments
from dfkd_core.networks.feature_distillation import Transfer
from dfkd_core.networks.teacher import Teacher
from dfkd_core.options.kinds import KindName
from dfkd_core.planning.rounds import chunks
from dfkd_core.rng import Streams
from dfkd_core.spec.config import DistillSpec, Procedural
from dfkd_core.teachers import load_teacher

PAIR = TASKS["text-direction"]
MEASURED_SEED, LEARNT_SEED = 4242, 77
CHUNK = 50
IMAGES, UPDATES = 512, 300  # other numbers are named in the results
REFINED_AT_ONCE = 64
MEASURED_EVERY = 100  # updates
RELATIVE_WEIGHT = 30.0
DULL = 0.01  # share of a layer's mean variance that is added to each variance


def relative_distance(moments: Sequence[Moments]) -> Tensor:
    """Mean over layers and channels of ((mean − running mean) / deviation)² + ln(variance / running variance)²."""
    layers = []
    for mean, variance, running_mean, running_variance in moments:
        dull = DULL * running_variance.mean()
        expected = running_variance + dull
        ratio = ((variance + dull) / expected).log()
        layers.append(((mean - running_mean).square() / expected + ratio.square()).mean())
    return RELATIVE_WEIGHT * torch.stack(layers).mean()


class Task:
    """The teacher, the resolved spec, and the lines on which students are measured."""

    def __init__(self, *, seed: int, measured: int) -> None:
        asked, path = asked_spec(PAIR, effort="standard", seed=seed, settings=[]), PAIR.teacher()
        self._found, self._parsed = inspect_with_input_space(path, asked.teacher)
        self.spec: DistillSpec = resolve(asked, self._found)[0]
        self.teacher: Teacher = load_teacher(path, asked.teacher, parsed=self._parsed)
        self.streams = Streams(seed)
        self._lines = drawn(MEASURED_SEED, measured)
        self._classes = self._classes_of(self.teacher)

    def student(self) -> nn.Module:
        """Return a new cut of the teacher."""
        return untrained_cut(self.teacher, self._parsed, self.spec, self._found)

    @torch.no_grad()
    def _classes_of(self, network: nn.Module) -> Tensor:
        return torch.cat([network(part).argmax(dim=1) for part in self._lines.split(CHUNK)])

    def agreement(self, network: nn.Module) -> float:
        """Return how often a network in eval mode gives the teacher's class, in percent."""
        return round(100 * float((self._classes_of(network) == self._classes).float().mean()), 2)


def drawn(seed: int, count: int) -> Tensor:
    """Return lines of text (N, 3, 48, 192)."""
    fonts = system_fonts()
    return torch.from_numpy(np.stack([lines.prepared(lines.line(seed, number, fonts)[0]) for number in range(count)]))


def marks(_task: Task, count: int) -> Tensor:
    """Return lines of marks (N, 3, 48, 192)."""
    return torch.from_numpy(np.stack([lines.prepared(marks_line(LEARNT_SEED, number)) for number in range(count)]))


def procedural(kind: KindName) -> Callable[[Task, int], Tensor]:
    """Return what draws procedural images (N, 3, 48, 192) of one kind."""

    def drawn_images(task: Task, count: int) -> Tensor:
        space, draws = task.teacher.input_space, task.streams["procedural"]
        return torch.lerp(*space.bounds(), procedural_images(space.shape, count, kinds=(kind,), generator=draws))

    return drawn_images


def refined_marks(task: Task, count: int) -> Tensor:
    """Return the product's marks (N, 3, 48, 192) after refinement."""
    options = Procedural(kinds=["marks"])
    bank = ProceduralBank(options, task.teacher, capacity=1, device=torch.device("cpu"))
    made: list[Tensor] = []
    for number in chunks(count, REFINED_AT_ONCE):
        new = bank.refined(number, generator=task.streams["refined"])
        made.append(new.images)
        bank.add(new, generator=task.streams["procedural-lots"])  # else it would return the same again
    return torch.cat(made)


def inverted(task: Task, count: int) -> Tensor:
    """Return images (N, 3, 48, 192) of the resolved method, made without a student."""
    device = torch.device("cpu")
    method = build_synthesizer(task.spec.distillation, task.teacher, streams=task.streams, device=device)
    made: list[Tensor] = []
    while sum(len(images) for images in made) < count:
        method.synthesize(None, rate=1.0)
        made.append(method.sample(count, generator=task.streams["fresh"]))
    return torch.cat(made)[:count]


def inverted_from_marks(task: Task, count: int) -> Tensor:
    """Return images as `inverted` does, started from the product's marks."""
    distillation = task.spec.distillation
    options = distillation.method_options.model_copy(update={"start": "marks"})
    task.spec = task.spec.model_copy(
        update={"distillation": distillation.model_copy(update={"method_options": options})}
    )
    return inverted(task, count)


def inverted_relative(task: Task, count: int) -> Tensor:
    """Return images as `inverted` does, matched by `relative_distance`."""
    with patch.object(losses, "batchnorm_distance", relative_distance):
        return inverted(task, count)


KINDS: dict[str, Callable[[Task, int], Tensor]] = {
    "drawn": lambda _task, count: drawn(LEARNT_SEED, count),
    "marks": marks,
    "shapes": procedural("shapes"),
    "scenes": procedural("scenes"),
    "marks-drawn-by-the-product": procedural("marks"),
    "marks-refined": refined_marks,
    "inverted": inverted,
    "inverted-from-marks": inverted_from_marks,
    "inverted-relative": inverted_relative,
}


def learn(task: Task, images: Tensor, *, updates: int, batch: int) -> dict[str, Any]:
    """Teach a new student with the images, and return its agreement every `MEASURED_EVERY` updates."""
    config = task.spec.distillation
    config = config.model_copy(update={"budget": config.budget.model_copy(update={"steps": updates})})
    training, draws = config.training, task.streams["augment"]
    augmentation = training.augmentation.model_copy(update={"flip": False})
    low, high = task.teacher.input_space.bounds()
    schedule, student = Schedule.of(config), task.student()
    transfer, optimizer = Transfer(student, task.teacher, training), build_optimizer(student, training)
    average = AveragedStudent(student, decay=average_decay(config))
    curve: dict[int, float] = {}
    for step in range(updates):
        rate = schedule.student_rate(step)
        optimizer.param_groups[0]["lr"] = training.learning_rate * rate
        chosen = images[torch.randint(len(images), (batch,), generator=draws)]
        seen = augment(chosen, augmentation, low=low, high=high, generator=draws).clamp(low, high)
        optimizer.zero_grad()
        ours, theirs, transferred = transfer.compare(seen, featured=batch, rate=rate)
        loss = distillation_loss(ours, theirs, training) + transferred
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(student.parameters(), training.gradient_clip or float("inf"))
        optimizer.step()
        transfer.step()
        average.update(student)
        if (step + 1) % MEASURED_EVERY == 0 or step + 1 == updates:
            curve[step + 1] = task.agreement(average.network)
            print(f"  {step + 1} updates: {curve[step + 1]} %", flush=True)
    return {"agreement": curve[updates], "curve": curve}


def main() -> None:
    """Measure the kinds, and write each as it ends."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", default=list(KINDS), metavar="KIND", help=", ".join(KINDS))
    parser.add_argument("--images", type=int, default=IMAGES)
    parser.add_argument("--updates", type=int, default=UPDATES)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--measured", type=int, default=500, help="lines on which students are measured")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    output = RESULTS / "image_kinds.json"
    for kind in options.kinds:
        task = Task(seed=options.seed, measured=options.measured)
        begun = time.process_time()
        images = KINDS[kind](task, options.images)
        made_in = time.process_time() - begun
        print(f"{kind}: {len(images)} images in {made_in:.0f} CPU seconds", flush=True)
        found = learn(task, images, updates=options.updates, batch=options.batch)
        results = json.loads(output.read_text()) if output.exists() else {}
        usual = (options.images, options.updates) == (IMAGES, UPDATES)
        size = "" if usual else f", {options.images} images, {options.updates} updates"
        results[f"{kind}, seed {options.seed}{size}"] = {
            **found,
            "measured": options.measured,
            "images": len(images),
            "cpu_seconds": {"images": round(made_in), "updates": round(time.process_time() - begun - made_in)},
            **describe_run(options.threads),
        }
        output.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
