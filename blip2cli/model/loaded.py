"""A loaded checkpoint of either kind: its parts, and how images are encoded.

The public classes build on it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch

from blip2cli.model.batches import Batches
from blip2cli.model.checkpoint.load import load_weights
from blip2cli.model.checkpoint.precision import tf32
from blip2cli.model.checkpoint.record import Checkpoint
from blip2cli.model.checkpoint.size import count_weights, weight_shapes
from blip2cli.model.encoder import Encoder
from blip2cli.model.graphs import Function, PendingRow, PendingTensors, Tensors, runner_for
from blip2cli.model.memory import automatic_batch_size
from blip2cli.model.recent import RecentImages


class LoadedCheckpoint:
    """The model, its tokenizer and its encoder.

    Args:
        checkpoint: the one to load.
        batch_size: images that are encoded together; None chooses what fits. It shrinks
            when memory runs out; `started_with` is the first one.
        recent: how many images are kept encoded.
    """

    def __init__(self, checkpoint: Checkpoint, batch_size: int | None = None, recent: int = 256) -> None:
        self.checkpoint = checkpoint
        self.tokenizer: Any = checkpoint.load_tokenizer()  # first: its errors show at once
        self.model: Any = load_weights(checkpoint).requires_grad_(False)
        self.encoder = Encoder(self.model, checkpoint.images)
        self.chooses_batch_size = batch_size is None
        self.batches = Batches(batch_size or self.fitting_batch_size())
        self.started_with = self.batch_size
        self.recent = RecentImages(self.batches, recent)
        self.runner = runner_for(checkpoint.devices)

    def fitting_batch_size(self, ranked: bool = False) -> int:
        """How many images are encoded together, by the memory that is free now; `ranked`
        is whether a second model ranks the texts."""
        weights = count_weights(weight_shapes(self.checkpoint.folder)).total
        return automatic_batch_size(self.model, self.checkpoint.devices, weights, ranked)

    @property
    def batch_size(self) -> int:
        return self.batches.largest

    @batch_size.setter
    def batch_size(self, images: int) -> None:
        self.batches.largest = images

    @property
    def num_query_tokens(self) -> int:
        return int(self.model.config.num_query_tokens)

    @contextmanager
    def computing(self) -> Iterator[None]:
        """A context with inference mode and, on CUDA, the right precision of fp32
        products."""
        with torch.inference_mode(), self._precision():
            yield

    @contextmanager
    def differentiating(self) -> Iterator[None]:
        """The same, but with gradients of what is asked for; the weights have none."""
        with torch.enable_grad(), self._precision():
            yield

    def _precision(self) -> AbstractContextManager[None]:
        if self.checkpoint.device.type != "cuda":
            return nullcontext()
        return tf32(self.checkpoint.precision != "fp32")

    def text(self, token_ids: Iterable[int]) -> str:
        """The text of token ids, without special tokens and surrounding white space."""
        decoded: str = self.tokenizer.decode(list(token_ids), skip_special_tokens=True)
        return decoded.strip()

    def run_on_images(self, name: str, function: Function, pixels: torch.Tensor) -> Tensors:
        """The result of a function of pixels, tensors [n, ...].

        If shapes are fixed, the function gets as many images as a batch has, with the
        last one repeated.
        """
        n, size = len(pixels), self.batch_size
        with self.computing():
            if not self.runner.fixed or n > size:
                return function(pixels)
            repeated = pixels[-1:].expand(size - n, *pixels.shape[1:])
            filled = torch.cat([pixels, repeated]) if n < size else pixels
            try:
                outputs = self.runner.run(name, function, filled)
            except torch.OutOfMemoryError:
                if n == size:
                    raise
                return function(pixels)  # there may be room for these
            return tuple(output[:n].clone() for output in outputs)

    def to_host(self, features: torch.Tensor) -> Iterable[torch.Tensor | PendingRow]:
        """The rows of features on the host: at once, or on their way where the device
        works on its own."""
        if not self.reads_late:
            return features.cpu()
        pending = PendingTensors((features,))
        return [PendingRow(pending, at) for at in range(len(features))]

    @property
    def reads_late(self) -> bool:
        """Whether the next batch should be begun before the features of one are read."""
        return self.runner.fixed

    def forget(self) -> None:
        """Forget the images that are kept encoded."""
        self.recent.forget()
