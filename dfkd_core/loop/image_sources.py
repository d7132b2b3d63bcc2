"""ImageSources: the images of a run, and how a student batch is mixed from them.

    synthesizer   makes the fresh images
    fresh         the synthesizer's images of the last rounds, labelled by the teacher
    remembered    what the memory replayed in the last rounds
    procedural    a bank of images that a program draws
    refined       a bank of procedural images after a few gradient steps towards random soft labels

A part of the new images is held out: it goes to the judge and is never trained on.
"""

import copy
import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from dfkd_core.errors import GeneratorCollapsed
from dfkd_core.images.augment import augment
from dfkd_core.images.batch import Batch, LabelledImages
from dfkd_core.images.pool import Pool
from dfkd_core.images.procedural import ProceduralBank
from dfkd_core.images.reservoir import PixelCodec
from dfkd_core.loop.collapse_guard import CollapseGuard
from dfkd_core.loop.counters import Counters
from dfkd_core.methods import build_synthesizer
from dfkd_core.networks.teacher import Teacher
from dfkd_core.planning.rounds import PROCEDURAL_HELD_OUT, SNAPSHOT_ROUNDS, SNAPSHOTS, chunks, held_out_of
from dfkd_core.rng import Streams
from dfkd_core.spec.config import DistillConfig


class ImageSources:
    """Makes and holds the images of a run. Images are (N, C, H, W) in the teacher's input space."""

    def __init__(
        self, config: DistillConfig, teacher: Teacher, *, streams: Streams, counters: Counters, device: torch.device
    ) -> None:
        self._teacher = teacher
        self._streams = streams
        self._counters = counters
        self._device = device
        low, high = teacher.input_space.bounds()
        self._low, self._high = low.to(device), high.to(device)  # (1, C, 1, 1) each
        procedural = config.procedural
        drawn = procedural.share > 0
        refined = drawn and procedural.refinement.share > 0
        capacity, refined_capacity = procedural.capacity * drawn, procedural.refinement.capacity * refined
        self.procedural = ProceduralBank(procedural, teacher, capacity=capacity, device=device)
        self.refined = ProceduralBank(procedural, teacher, capacity=refined_capacity, device=device)
        self.newest: Batch | None = None  # the fresh images of this round
        codec, rounds = PixelCodec(low, high), config.training.fresh_rounds
        self.fresh = Pool(rounds, codec, device=device)
        self.remembered = Pool(rounds, codec, device=device)
        compute = config.compute
        self._procedural_chunks = chunks(procedural.images_per_round * drawn, compute.label_chunk)
        self._refined_chunks = chunks(procedural.refinement.images_per_round * refined, compute.chunk)
        self._num_drawn: int | None = 0  # procedural images, since the start of the run; None if that is not known
        self._sampled = torch.zeros((0, *teacher.input_space.shape), device=device)  # not labelled yet
        self.use_method(config)

    def use_method(self, config: DistillConfig) -> None:
        """Continue with a new synthesizer of `config.method`, which warms up first. Images made so far stay."""
        self._config = config
        self.synthesizer = build_synthesizer(config, self._teacher, streams=self._streams, device=self._device)
        self._guard = CollapseGuard(
            min_class_entropy=config.steadiness.min_class_entropy, min_diversity=config.steadiness.min_diversity
        )
        self._begin()

    def restart_synthesizer(self) -> None:
        """Give the synthesizer new random weights; it warms up again."""
        self.synthesizer.restart()
        self._begin()

    def _begin(self) -> None:
        self._healthy_snapshots = [copy.deepcopy(self.synthesizer.state())]  # oldest first
        self._counters.start_synthesizer()

    # Where new images come from

    @property
    def num_procedural_chunks(self) -> int:
        """The number of chunks in which a round's procedural images are drawn."""
        return len(self._procedural_chunks)

    @property
    def num_refined_chunks(self) -> int:
        """The number of chunks in which a round's refined images are made."""
        return len(self._refined_chunks)

    def draw_procedural(self, chunk: int) -> Iterator[Batch]:
        """Add a chunk of new procedural images to their bank, and yield the images that are held out instead."""
        count, first = self._procedural_chunks[chunk], self._num_drawn
        new = self.procedural.draw(count, generator=self._streams["procedural"])
        yield from self._add(self.procedural, new, units=count, first=first)
        if first is not None:
            self._num_drawn = first + count

    def draw_refined(self, chunk: int) -> Iterator[Batch]:
        """Add a chunk of refined images to their bank, and yield the images that are held out instead."""
        count = self._refined_chunks[chunk]
        yield from self._add(self.refined, self.refined.refined(count, generator=self._streams["refined"]), units=0)

    def _add(self, bank: ProceduralBank, new: Batch, *, units: int, first: int | None = None) -> Iterator[Batch]:
        """Show new images to a bank, and yield held-out images of the kinds that the bank keeps."""
        lots = self._streams["procedural-lots"]
        self._counters.images_synthesized += len(new)
        num_candidates = len(new) // PROCEDURAL_HELD_OUT
        candidates = new[:num_candidates]
        if num_candidates:
            odds = bank.weights(candidates)  # (num_candidates,)
            chosen = torch.rand(len(odds), generator=lots, dtype=odds.dtype) * odds.max() < odds
            yield candidates[chosen.to(self._device)]
        bank.add(new[num_candidates:], generator=lots, first=None if first is None else first + num_candidates)
        self._teacher.engine.pulse.did(units)

    def complete(self) -> None:
        """Draw the procedural images that a restored run lacks, in the same chunks as the first time.

        After each chunk comes a safe point. Nothing else changes before the last of them.

        Raises:
            Interrupted: if the run has to stop before that.
            CheckpointMismatch: if the images are drawn differently here.
        """
        if not self.procedural.is_incomplete:
            return
        draws, first = self._streams.again("procedural"), 0
        for count in itertools.cycle(self._procedural_chunks):
            if first == self._num_drawn:
                break
            self.procedural.draw_again(first, count, generator=draws)
            first += count
            self._teacher.engine.pulse.safe_point()
        self.procedural.complete()

    def sample_fresh(self) -> None:
        """Take new images of the synthesizer for this round; there may be none."""
        self.newest = None
        made = self.sample(self._config.training.fresh_batches * self._config.method_options.batch_size, stream="fresh")
        if not self.synthesizer.optimises_images:  # optimised images were counted when they were made
            self._counters.images_synthesized += made

    @property
    def optimised_at_once(self) -> int | None:
        """The number of images of a batch that the synthesizer optimises; None if it does not optimise images."""
        return self._config.method_options.batch_size if self.synthesizer.optimises_images else None

    def sample(self, count: int, *, stream: str) -> int:
        """Take at most `count` images of the synthesizer, and return how many. They wait for their labels."""
        self._sampled = self.synthesizer.sample(count, generator=self._streams[stream])  # (N, C, H, W), N ≤ count
        return len(self._sampled)

    def labelled_sample(self) -> Batch:
        """Return the images that were sampled last, in the valid range, with the teacher's logits."""
        return self.labelled(self.in_range(self._sampled))

    def label_fresh(self) -> tuple[Batch, Batch] | None:
        """Label what was sampled; return held-out and training images, or None if there are none."""
        images = self._sampled
        if not len(images):
            return None
        num_held_out = held_out_of(len(images))
        return self.labelled(self.in_range(images[:num_held_out])), self.labelled(images[num_held_out:])

    def add_fresh(self, fresh: Batch) -> None:
        """Let the training images join those of the last rounds."""
        self.newest, self._sampled = fresh, self._sampled[:0]
        self.fresh.add(fresh)

    def add_remembered(self, replayed: LabelledImages) -> None:
        """Add the images that the memory replayed in this round."""
        self.remembered.add(replayed)

    def labelled(self, images: Tensor) -> Batch:
        """Return the images with the teacher's logits (N, num_classes)."""
        return Batch(images=images, teacher_logits=self._teacher.label(images))

    def in_range(self, images: Tensor) -> Tensor:
        """Clamp images to the valid pixel range for student, probe and audit set, unless `training` turns it off."""
        return images.clamp(self._low, self._high) if self._config.training.valid_range else images

    # What the student learns from

    def student_batch(self, size: int, *, replay_share: float, generator: torch.Generator) -> Batch:
        """Draw `size` training images: the share of procedural images first, then fresh and remembered images.

        `replay_share` is the share of remembered images among those that are not procedural.
        """
        num_procedural = self._num_procedural(size)
        refined_share = self._config.procedural.refinement.share
        num_refined = min(round(num_procedural * refined_share), num_procedural) if len(self.refined) else 0
        num_remembered = round((size - num_procedural) * replay_share) if len(self.remembered) else 0
        parts = []
        for bank, count in (self.procedural, num_procedural - num_refined), (self.refined, num_refined):
            if count:
                parts.append(bank.sample(count, generator=generator))
        parts.append(self.fresh.sample(size - num_procedural - num_remembered, generator=generator))
        if len(self.remembered):
            parts.append(self.remembered.sample(num_remembered, generator=generator))
        return Batch.join(*parts)

    def _num_procedural(self, size: int) -> int:
        return round(size * self._config.procedural.share)

    def num_featured(self, size: int) -> int:
        """Return the number of images at the start of a student batch on which features are compared.

        Images of a persistent generator are left out, because that generator fits its images to the teacher's features.
        Optimised images are as good as procedural images.
        """
        return size if self.synthesizer.optimises_images else self._num_procedural(size)

    def augmented(self, images: Tensor, *, generator: torch.Generator) -> Tensor:
        """Augment images (N, C, H, W) for the student, and clamp them to the valid range, as `training` says."""
        options = self._config.training.augmentation
        return self.in_range(augment(images, options, low=self._low, high=self._high, generator=generator))

    # Whether the synthesizer is healthy

    def check_collapse(self, fresh: Batch) -> str | None:
        """Roll the synthesizer back if `fresh` shows that it collapsed; return the reason, or None.

        The state of a healthy synthesizer is kept every SNAPSHOT_ROUNDS rounds for a roll-back.

        Raises:
            GeneratorCollapsed: if earlier roll-backs in a row did not help.
        """
        reason = self._guard.check(fresh)
        if reason is not None:
            self._roll_back(reason)
        elif self._guard.healthy and self._counters.rounds % SNAPSHOT_ROUNDS == 0:
            self._healthy_snapshots.append(copy.deepcopy(self.synthesizer.state()))
            del self._healthy_snapshots[:-SNAPSHOTS]
            self._counters.rollbacks_in_a_row = 0
        return reason

    def _roll_back(self, reason: str) -> None:
        counters = self._counters
        counters.rollbacks += 1
        counters.rollbacks_in_a_row += 1
        if counters.rollbacks_in_a_row > self._config.steadiness.max_rollbacks:
            raise GeneratorCollapsed(
                f"{reason}; {counters.rollbacks_in_a_row - 1} roll-backs did not help",
                hint="lower distillation.method_options.learning_rate or raise "
                "distillation.method_options.balance_weight",
            )
        self.synthesizer.restore(self._healthy_snapshots[0])
        for _ in range(counters.rollbacks_in_a_row):  # the snapshot holds the learning rate before these roll-backs
            self.synthesizer.back_off()

    # Checkpoints

    def state(self, *, leave_out: bool) -> dict[str, Any]:
        """Return the state of all sources; the keys are those of checkpoint files.

        With `leave_out`, images that can be drawn again are left out.
        """
        return {
            "synthesizer": self.synthesizer.state(),
            "procedural": self.procedural.state(leave_out=leave_out),
            "refined": self.refined.state(),
            "drawn": self._num_drawn,
            "guard": self._guard.state(),
            "sampled": self._sampled,
            "newest": self.newest is not None,  # it is the last of the fresh ones
            "fresh": self.fresh.state(),
            "remembered": self.remembered.state(),
            "good": self._healthy_snapshots,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from the `state` of earlier sources."""
        for part, key in (
            (self.synthesizer, "synthesizer"),
            (self.procedural, "procedural"),
            (self.refined, "refined"),
            (self._guard, "guard"),
        ):
            part.restore(state[key])
        self._num_drawn = state.get("drawn")  # earlier versions did not count
        self.fresh.restore(state["fresh"])
        self.remembered.restore(state["remembered"])
        self.newest = self.fresh.newest if state["newest"] else None
        self._sampled = state["sampled"].to(self._device)
        self._healthy_snapshots = list(state["good"])
