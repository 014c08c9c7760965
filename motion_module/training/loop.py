"""The training loop (arXiv 2307.04725, section 4.2; reference: `train.py` of guoyww/AnimateDiff).

All random numbers (the order of clips, noise, timesteps, dropped captions) depend only on the seed, the batch size on all
devices together, and the number of the batch; not on where a training was interrupted.
"""

from __future__ import annotations

import hashlib
import json
import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import timedelta
from functools import partial
from types import FrameType
from typing import Any, TypeVar

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.checkpoint import checkpoint

from ..checkpoint import TRAINING
from .batch_order import Order
from .config import PIXELS_PER_LATENT, Config, ConfigError
from .data import Report
from .folder import STOP
from .image_model import load_image_model
from .latent_cache import Embeddings, Example, cached_examples, fingerprint
from .log import Log
from .state import Identity, NotSaved, belongs, load_state, save_state, write
from .subjects import SUBJECTS
from .trained_parts import Animated
from .trained_sparse_ctrl import with_mask
from .validation import validation_clips

T = TypeVar("T")
MAX_GRADIENT_NORM = 1.0
"""The norm that gradients are clipped to."""
MOST_OVERFLOWS = 50
"""The number of consecutive steps that a gradient scaler may skip."""
TIMEOUT = timedelta(days=7)
"""How long processes wait for the main one while it encodes videos or generates validation clips."""
SECOND_INTERRUPT = 2.0
"""Seconds within which another Ctrl-C counts as the same one: launchers of several processes pass theirs on."""


class Diverged(RuntimeError):
    """The loss or the gradient is not a number any more. The text is for the user."""


class StopRequested(Exception):
    """The training was paused or stopped before its first step."""


@dataclass(frozen=True)
class Batch:
    """The data of one training pass. `latents`, `noise`: `(clips, frames, 4, height, width)`. `times`: timesteps `(clips,)`.
    `context`: text embeddings `(clips, tokens, width)`. `pictures`: what is shown of the clips, `(clips, frames, 5, …)`.
    """

    latents: Tensor
    noise: Tensor
    times: Tensor
    context: Tensor
    pictures: Tensor


class Training:
    """One training, from its options to the output file."""

    def __init__(self, config: Config, subject: Callable[[nn.Module, Config], Animated] | None = None) -> None:
        """Loads models, fills the cache, and resumes from the state in `config.folder` if there is one.

        `subject`: what is trained, if not what `config.train` names. Raises ConfigError, DataError, MissingDependency,
        CheckpointError or UnsuitableUNet, each with a text for the user.
        """
        self.config = config
        self.accelerator = Accelerator(
            gradient_accumulation_steps=config.accumulate,
            mixed_precision="no" if config.precision == "full" else config.precision,
            kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False), InitProcessGroupKwargs(timeout=TIMEOUT)],
        )
        _require_possible(config, self.accelerator)
        self.log = Log(config.folder, main=self.accelerator.is_main_process)
        device = self.accelerator.device
        self.model = load_image_model(config.base).to(device)
        base = {
            "base": fingerprint(self.model.unet),
            "autoencoder": fingerprint(self.model.autoencoder),
            "text encoder": fingerprint(self.model.text_encoder),
        }
        if self.model.predicts == "v":  # the weights do not tell
            base["prediction of the base"] = "v"
        self.examples = self._cached_examples()
        torch.manual_seed(config.seed)
        self.animated = (subject or SUBJECTS[config.train])(self.model.unet, config).to(device)
        parts = {**base, "data": _digest(self.examples), **self.animated.frozen()}
        self.identity = Identity.of(config, parts, self.accelerator.num_processes)
        if config.precision != "full":
            halved(self.model.unet, torch.float16 if config.precision == "fp16" else torch.bfloat16)
        learning = [weight for weight in self.animated.learning.parameters() if weight.requires_grad]
        # foreach, torch's default on a GPU, would need the memory of all these weights once more
        optimizer = torch.optim.AdamW(learning, lr=config.learning_rate, weight_decay=config.weight_decay, foreach=False)
        self.averaged = AveragedModel(self.animated.learning, multi_avg_fn=partial(_average, config.ema))
        self.predict, self.optimizer = self.accelerator.prepare(self.animated, optimizer)
        self.alphas = config.noise_schedule.alphas_cumprod().to(device)
        self.order = Order(self.examples, config.batch * self.accelerator.num_processes, config.seed)
        self._overflows = 0
        self.step = load_state(
            config.folder,
            identity=self.identity,
            learning=self.animated.learning,
            averaged=self.averaged,
            optimizer=optimizer,
            scaler=self.accelerator.scaler,
        )

    def _cached_examples(self) -> list[Example]:
        """Returns the clips of the training. The main process encodes them; the others wait, and then read the cache."""
        config, report = self.config, Report()
        examples: list[Example] = []
        # StopRequested is raised again below, where no other process waits for this one.
        with self.accelerator.main_process_first(), suppress(StopRequested):
            examples, report = cached_examples(config, self.model, self._encoding)
            self.embeddings = Embeddings(config.folder / "cache", self.model)
            captions = {"", *config.validation.prompts, *(example.caption for example in examples)}
            self.embeddings.add(self._encoding(sorted(captions), "Encoding captions"))
        if self._any(self._stop_request() != ""):
            self.log.status("Paused" if self._take_request() == "pause" else "Stopped")
            raise StopRequested
        self.log.report(report, config)
        self.model.text_encoder.to("cpu")
        self.model.autoencoder.to("cpu")
        return examples

    def _encoding(self, items: list[T], task: str = "Encoding videos") -> Iterator[T]:
        """Yields items, and shows how many are done. Raises StopRequested."""
        for item in self.log.with_progress(items, task):
            if self._stop_request():
                raise StopRequested
            yield item

    def _stop_request(self) -> str:
        """Returns "pause" or "stop" if the training is to end; else an empty text."""
        file = self.config.folder / STOP
        return (file.read_text(encoding="utf-8") or "stop") if file.exists() else ""

    def _take_request(self) -> str:
        """Returns the stop request and deletes its file. Only the main process does so."""
        request = self._stop_request() if self.accelerator.is_main_process else ""
        if request:
            (self.config.folder / STOP).unlink()
        return request

    # --- one step ---

    def batch(self, index: int) -> Batch:
        """Returns this process's part of batch `index`, counted from the start of the training."""
        config, count = self.config, self.config.batch
        chosen = [self.examples[number] for number in self.order.at(index)]
        draw = torch.Generator().manual_seed(_seed(config.seed, index))
        height, width = (side // PIXELS_PER_LATENT for side in chosen[0].size)
        shape = (len(chosen), config.frames, 4, height, width)
        jitter, noise = torch.randn(shape, generator=draw), torch.randn(shape, generator=draw)
        times = torch.randint(0, config.noise_schedule.steps, shape[:1], generator=draw)
        dropped = torch.rand(shape[:1], generator=draw) < config.caption_dropout
        shown = self.animated.shown(len(chosen), draw)
        mine = slice(self.accelerator.process_index * count, (self.accelerator.process_index + 1) * count)
        mean, deviation = torch.stack([example.moments() for example in chosen[mine]]).chunk(2, dim=2)
        captions = ["" if drop else example.caption for example, drop in zip(chosen[mine], dropped[mine])]
        latents, pictures = mean + deviation * jitter[mine], with_mask(mean, shown[mine])
        parts = (latents, noise[mine], times[mine], self.embeddings.of(captions), pictures)
        return Batch(*(part.to(self.accelerator.device) for part in parts))

    def loss(self, batch: Batch) -> Tensor:
        """Returns the mean squared error of the prediction over all frames: the objective of section 4.2 of the paper."""
        return self.losses(batch).mean()

    def losses(self, batch: Batch) -> Tensor:
        """Returns the loss of each clip, `(clips,)`."""
        alphas = self.alphas[batch.times].view(-1, 1, 1, 1, 1)
        noised = alphas**0.5 * batch.latents + (1 - alphas) ** 0.5 * batch.noise
        predicted = self.predict(noised, batch.times, batch.context, batch.pictures)
        wanted = batch.noise
        if self.model.predicts == "v":
            wanted = alphas**0.5 * batch.noise - (1 - alphas) ** 0.5 * batch.latents
        return (predicted.float() - wanted).square().mean(dim=(1, 2, 3, 4))

    def gradients(self) -> float:
        """Computes the gradients of the next step; returns its mean loss over all processes. Raises Diverged."""
        losses = []
        for part in range(self.config.accumulate):
            with self.accelerator.accumulate(self.predict):
                loss = self.loss(self.batch(self.step * self.config.accumulate + part))
                self.accelerator.backward(loss)
            losses.append(loss.detach())
        mean = self.accelerator.reduce(torch.stack(losses).mean(), "mean").item()
        if not math.isfinite(mean):
            raise self._diverged("loss")
        return mean

    def rate(self) -> float:
        """Returns the learning rate of the next step."""
        return self.config.learning_rate * min(1.0, (self.step + 1) / max(1, self.config.warm_up))

    def _diverged(self, what: str) -> Diverged:
        return Diverged(
            f"The {what} is not a number at step {self.step + 1}, so the training was stopped. The last saved state is kept. "
            "Set a lower learning_rate or another precision in the options, and start the training again to resume from there."
        )

    def advance(self) -> float:
        """Trains one step and returns its loss. Raises Diverged."""
        loss = self.gradients()
        self.optimizer.param_groups[0]["lr"] = self.rate()
        norm = self.accelerator.clip_grad_norm_(self.animated.learning.parameters(), MAX_GRADIENT_NORM)
        self._overflows = 0 if math.isfinite(norm) else self._overflows + 1
        if self._overflows > (MOST_OVERFLOWS if self.accelerator.scaler else 0):
            raise self._diverged("gradient")
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.averaged.update_parameters(self.animated.learning)
        self.step += 1
        return loss

    # --- all steps ---

    def run(self) -> bool:
        """Trains to the last step and writes the output; returns False if it was stopped before, which saves everything too.

        Raises Diverged or NotSaved.
        """
        config, request, ended = self.config, "", False
        with (
            self.animated.attached(),
            checkpointing(self.animated, config.gradient_checkpointing),
            _interrupts() as interrupted,
            self.log.learning(self.step, config.steps),
        ):
            if self.step >= config.steps:  # only the output may be missing
                self._write_output()
            while self.step < config.steps and not ended:
                loss = self.advance()
                self.log.step(self.step, loss, self.optimizer.param_groups[0]["lr"])
                request = self._take_request()
                ended = self._any(bool(interrupted or request))
                if self.step % config.save_every == 0 or self.step == config.steps or ended:
                    self.save()
                if config.validation.prompts and (self.step % config.validation.every == 0 or self.step == config.steps):
                    self.validate()
        self.log.end(self.step, config, request)
        return self.step >= config.steps

    def _any(self, here: bool) -> bool:
        """Returns whether something is true in any process."""
        flag = torch.tensor(float(here), device=self.accelerator.device)
        return self.accelerator.reduce(flag, "sum").item() > 0

    def save(self) -> None:
        """Writes the state, and the output from the weights so far. Raises NotSaved."""
        if not self.accelerator.is_main_process:
            return
        save_state(
            self.config.folder,
            self.step,
            identity=self.identity,
            learning=self.animated.learning,
            averaged=self.averaged,
            optimizer=self.optimizer,
            scaler=self.accelerator.scaler,
        )
        self._write_output()

    def _write_output(self) -> None:
        """Writes the output. Raises NotSaved at the last step only: before, another program may have the file open."""
        if not self.accelerator.is_main_process:
            return
        mean = self.averaged.module.state_dict()
        tensors = {key: tensor.half() for key, tensor in self.animated.published(mean).items()}
        try:
            write(self.config.output, tensors, header(self.config, self.identity, self.step))
        except NotSaved as error:
            if self.step >= self.config.steps:
                raise
            self.log.say(str(error))

    def validate(self) -> None:
        """Generates clips with the averaged weights, and logs them."""
        if self.accelerator.is_main_process:
            device, autoencoder = self.accelerator.device, self.model.autoencoder
            with (
                _with_weights(self.animated.learning, self.averaged.module),
                self.accelerator.autocast(),
                _on(device, autoencoder),
            ):
                clips = validation_clips(self.animated, self.examples, self.model, self.embeddings, self.config)
            self.log.clips(self.step, clips)
        self.accelerator.wait_for_everyone()


def header(config: Config, identity: Identity, step: int) -> dict[str, str]:
    """Returns the header of a trained file."""
    facts = {
        "trained": config.train,
        "training": identity.digest,
        "base": {"name": config.base.name, "unet_sha256": identity.parts["base"]},
        "data": config.data.name,
        "steps": step,
        "seed": config.seed,
        "frames": config.frames,
        "stride": config.stride,
        "size": config.size,
        "noise_schedule": asdict(config.noise_schedule),
        "motion_module": config.motion_module.name if config.motion_module else None,
        "domain_adapter": config.domain_adapter.name if config.domain_adapter else None,
        "licence": config.licence,
    }
    return {TRAINING: json.dumps(facts)}


def _seed(seed: int, index: int) -> int:
    """Returns a seed for a batch."""
    return int(np.random.default_rng([seed, index]).integers(2**62))


def _require_possible(config: Config, accelerator: Accelerator) -> None:
    """Raises ConfigError if this machine cannot train like this, or if another file would be overwritten."""
    if config.precision == "fp16" and accelerator.scaler is None:
        raise ConfigError("precision: fp16 needs a GPU, and there is none. Set it to full, or to bf16.")
    if config.output.exists() and not belongs(config.output, config.folder):
        raise ConfigError(f"output: {config.output} already exists, and this training did not write it. Choose another name.")


def _digest(examples: list[Example]) -> str:
    """Returns a hash of all clips: of the content of their videos, and of their captions."""
    described = json.dumps([(example.video, example.key, example.size, example.caption) for example in examples])
    return hashlib.sha256(described.encode()).hexdigest()


def _average(decay: float, averaged: list[Tensor], current: list[Tensor], count: Tensor | int) -> None:
    """Updates an exponential moving average of weights. The decay is lower in the first steps, to forget the initial
    weights.
    """
    done = int(count)
    torch._foreach_lerp_(averaged, current, 1 - min(decay, (1 + done) / (10 + done)))


def halved(unet: nn.Module, dtype: torch.dtype) -> None:
    """Converts the layers of an image UNet to half precision, except its norms."""
    for layer in unet.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            layer.to(dtype)


@contextmanager
def checkpointing(animated: Animated, wanted: bool) -> Iterator[None]:
    """While open, the blocks of the UNet compute their activations again in the backward pass instead of storing them."""
    unet: Any = animated.unet
    blocks = [*unet.input_blocks, unet.middle_block, *unet.output_blocks] if wanted else []
    for block in blocks:
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)
    try:
        yield
    finally:
        for block in blocks:
            del block.forward


@contextmanager
def _with_weights(module: nn.Module, other: nn.Module) -> Iterator[None]:
    """While open, `module` has the weights of `other`. Its own are moved to RAM."""
    own = {name: tensor.to("cpu", copy=True) for name, tensor in module.state_dict().items()}
    module.load_state_dict(other.state_dict())
    try:
        yield
    finally:
        module.load_state_dict(own)


@contextmanager
def _on(device: torch.device, module: nn.Module) -> Iterator[None]:
    """While open, `module` is on `device`; afterwards it is on the CPU."""
    module.to(device)
    try:
        yield
    finally:
        module.to("cpu")


@contextmanager
def _interrupts() -> Iterator[list[float]]:
    """While open, a first Ctrl-C is added to the list, so that the step can be finished and saved. A second one ends at
    once.
    """
    interrupts: list[float] = []

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        if interrupts and time.monotonic() - interrupts[0] > SECOND_INTERRUPT:
            raise KeyboardInterrupt
        interrupts.append(time.monotonic())

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield interrupts
    finally:
        signal.signal(signal.SIGINT, before)
