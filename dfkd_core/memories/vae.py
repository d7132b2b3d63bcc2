"""Generative pseudo replay: a VAE models all images ever synthesized; its decoder is the memory. Binici, Aggarwal,
Pham, Leman, Mitra: Robust and Resource-Efficient Data-Free Knowledge Distillation by Generative Pseudo Replay,
AAAI 2022, https://arxiv.org/abs/2201.03019.

The loss compares reconstructions with images through the teacher. Codes are balanced over the teacher's classes before
they are decoded. The VAE also trains on its own replay, so that the VAE itself does not forget.
"""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from dfkd_core.images.batch import Batch
from dfkd_core.memories.codes import CodePrior
from dfkd_core.memories.memory import Memory
from dfkd_core.networks import losses
from dfkd_core.networks.generators import Encoder, Generator
from dfkd_core.networks.hooks import buffers_kept_on_error
from dfkd_core.networks.teacher import Features, Teacher
from dfkd_core.options.memories.vae import VaeOptions
from dfkd_core.rng import Streams

BALANCE_WEIGHT = 5.0  # weight of class balance relative to confidence, in latent inference and prior matching (2.5)
AGREEMENT_MEMORY = 0.9  # decay of the running reconstruction agreement at each update


class VaeMemory(Memory):
    """Holds encoder, decoder, their optimiser and the fitted distribution of the codes."""

    def __init__(self, options: VaeOptions, teacher: Teacher, *, streams: Streams, device: torch.device) -> None:
        self._options = options
        self._teacher = teacher
        self._run = teacher.engine
        self._device = device
        self._draws = streams["vae"]
        self._updates = 0
        self._updates_of_round = 0
        self._terms: dict[str, Tensor] = {}  # of the last update
        self._agreement = 0.0  # running share of reconstructions that keep the image's class
        space = teacher.input_space
        self.encoder = Encoder(
            space.shape,
            latent_dim=options.latent_dim,
            width=options.width,
            batchnorm_eps=options.batchnorm_eps,
            published=options.encoder == "published",
            generator=streams["encoder-weights"],
        ).to(device)
        self.decoder = Generator(
            space,
            latent_dim=options.latent_dim,
            width=options.width,
            batchnorm_eps=options.batchnorm_eps,
            spectral_norm=False,
            output=options.output,
            generator=streams["decoder-weights"],
        ).to(device)
        for network in (self.encoder, self.decoder):
            self._run.to_channels_last(network, device)
        self._prior = CodePrior(teacher.num_classes, options.latent_dim) if options.prior == "fitted" else None
        parameters = [*self.encoder.parameters(), *self.decoder.parameters()]
        self._optimizer = torch.optim.Adam(parameters, lr=options.learning_rate)

    def remember(self, fresh: Batch) -> dict[str, Tensor]:
        """Train the VAE on a random part of the fresh images and on the memory's own replay.

        After each update comes a safe point; a resumed run goes on with the updates that are left.
        """
        pulse = self._run.pulse
        while self._updates_of_round < self._options.updates_per_round:
            with buffers_kept_on_error(self.encoder, self.decoder):
                chosen = torch.randperm(len(fresh), generator=self._draws)[: self._options.batch_size].to(self._device)
                novel = Batch(images=fresh.images[chosen], teacher_logits=fresh.teacher_logits[chosen])
                self._terms = self._update(Batch.join(novel, self._rehearsal(len(novel))))
            self._updates_of_round += 1
            pulse.safe_point()
        self._updates_of_round = 0
        losses = {**self._terms, "agreement": torch.tensor(self._agreement)}
        return {f"vae_{name}": value for name, value in losses.items()}

    def _rehearsal(self, novel: int) -> Batch | None:
        """Return the VAE's own replay as `self_replay_share` of a batch with `novel` new images.

        The result is None before the first update.
        """
        count = self._options.rehearsed(novel)
        return self._decoded(count, self._draws) if self._updates and count else None

    def _update(self, batch: Batch) -> dict[str, Tensor]:
        """Take one Adam step of encoder and decoder (methods-replay 2.4) and return the detached terms."""
        self.encoder.train()
        self.decoder.train()
        terms = self.terms(batch)
        self._optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(losses.weighted_sum(terms))
        self._optimizer.step()
        self._updates += 1
        self._note()
        return {name: value.detach() for name, (_weight, value) in terms.items()}

    def terms(self, batch: Batch) -> dict[str, tuple[float, Tensor]]:
        """Return each term of the VAE's loss with its weight; terms with weight 0 may be left out."""
        options = self._options
        mu, logvar = self._run.in_chunks(self.encoder, batch.images)
        noise = torch.randn(mu.shape, generator=self._draws).to(self._device)
        reconstruction = self._run.in_chunks(self.decoder, mu + noise * (0.5 * logvar).exp())
        features: Features | None = None
        if options.feature_weight and "features" in self._teacher.offers:
            features = "penultimate"
        matches = options.bn_weight > 0 and "batchnorm" in self._teacher.offers
        seen = self._teacher.observe(reconstruction, features=features, moments=matches)
        terms = {
            "pixel": (options.pixel_weight, (reconstruction - batch.images).abs().mean()),
            "logit": (options.logit_weight, losses.logit_l1(seen.logits, batch.teacher_logits)),
            "kld": (options.kld_weight, losses.kld_from_standard_normal(mu, logvar)),
        }
        if seen.features is not None:
            with torch.no_grad():
                target = self._teacher.observe(batch.images, features=features).features
            assert target is not None
            terms["feature"] = (options.feature_weight, (seen.features - target).abs().mean())
        if matches:
            terms["bn"] = (options.bn_weight, losses.batchnorm_distance(seen.moments))
        if options.prior_match_weight:
            terms["prior"] = (options.prior_match_weight, self._prior_match(len(batch)))
        self._seen = batch.teacher_logits.argmax(dim=1), seen.logits.detach().argmax(dim=1), mu.detach()
        return terms

    def _prior_match(self, count: int) -> Tensor:
        logits = self._teacher.observe(self._run.in_chunks(self.decoder, self._codes(count, self._draws))).logits
        return losses.onehot(logits) + BALANCE_WEIGHT * losses.class_balance(logits)

    def _note(self) -> None:
        """Take in what the update has seen: the share of kept classes, and the codes."""
        classes, reconstructed, mu = self._seen
        share = float((reconstructed == classes).float().mean())
        self._agreement = AGREEMENT_MEMORY * self._agreement + (1 - AGREEMENT_MEMORY) * share
        if self._prior is not None:
            self._prior.observe(mu, classes)

    @property
    def reconstruction_agreement(self) -> float:
        """Running share, in [0, 1], of reconstructions that have the same teacher class as their image."""
        return self._agreement

    def replay(self, count: int, *, generator: torch.Generator) -> Batch | None:
        """Decode codes; return None until the reconstruction agreement has reached `agreement_gate`."""
        if not self._updates or self._agreement < self._options.agreement_gate:
            return None
        return self._decoded(count, generator)

    def _decoded(self, count: int, generator: torch.Generator) -> Batch:
        """Decode class-balanced codes in eval mode and return the images with the teacher's logits."""
        self.decoder.eval()
        z = self.balanced(self._codes(count, generator))
        with torch.no_grad():
            images = self._run.in_chunks(self.decoder, z)
        return Batch(images=images, teacher_logits=self._teacher.label(images))

    def _codes(self, count: int, generator: torch.Generator) -> Tensor:
        if self._prior is None:
            return torch.randn((count, self._options.latent_dim), generator=generator).to(self._device)
        return self._prior.sample(count, generator=generator).to(self._device)

    def balanced(self, z: Tensor) -> Tensor:
        """Move codes (N, latent_dim) by a few Adam steps towards confident, class-balanced images (2.5)."""
        if not self._options.inference_steps or len(z) < 2:
            return z
        z = z.clone().requires_grad_()
        optimizer = torch.optim.Adam([z], lr=self._options.inference_learning_rate)
        for _ in range(self._options.inference_steps):
            logits = self._teacher.observe(self._run.in_chunks(self.decoder, z)).logits
            loss = BALANCE_WEIGHT * losses.class_balance(logits) + losses.onehot(logits)
            if self._prior is None:
                loss = loss + losses.standard_normal_moments(z)
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss, inputs=[z])
            optimizer.step()
        return z.detach()

    @property
    def num_bytes(self) -> int:
        """Bytes of what a replay needs: decoder weights and buffers, and the moments of the codes."""
        kept = [*self.decoder.parameters(), *self.decoder.buffers()]
        prior = self._prior.num_bytes if self._prior is not None else 0
        return sum(tensor.numel() * tensor.element_size() for tensor in kept) + prior

    def state(self) -> dict[str, Any]:
        """Return both networks, their optimiser, the moments of the codes and the counters."""
        return {
            "encoder": self.encoder.state_dict(),
            "decoder": self.decoder.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "prior": self._prior.state() if self._prior is not None else None,
            "updates": self._updates,
            "updates_of_round": self._updates_of_round,
            "terms": dict(self._terms),
            "agreement": self._agreement,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from the `state` of an earlier VAE."""
        self.encoder.load_state_dict(state["encoder"])
        self.decoder.load_state_dict(state["decoder"])
        self._optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))  # Adam would share the tensors
        if self._prior is not None:
            self._prior.restore(state["prior"])
        self._updates, self._agreement = state["updates"], state["agreement"]
        self._updates_of_round, self._terms = state["updates_of_round"], dict(state["terms"])
