"""A loaded checkpoint of either kind: its parts, and how many images it takes together. The faces are made of it."""

from __future__ import annotations

from typing import Any

from blip2cli.model.batches import Batches
from blip2cli.model.checkpoint import Checkpoint
from blip2cli.model.encoder import Encoder
from blip2cli.model.memory import automatic_batch_size
from blip2cli.model.recent import Recent


class LoadedCheckpoint:
    """The model, its tokenizer, and the way into its image side.

    Args:
        checkpoint: what `checkpoint.find` found.
        batch_size: images encoded together; None chooses what fits. It shrinks where memory runs out; `started_with`
            keeps what it was.
        recent: images that are kept encoded.
    """

    def __init__(self, checkpoint: Checkpoint, batch_size: int | None = None, recent: int = 256) -> None:
        self.checkpoint = checkpoint
        self.model: Any = checkpoint.load_model()
        self.tokenizer: Any = checkpoint.load_tokenizer()
        self.encoder = Encoder(self.model, checkpoint.images)
        self.batches = Batches(batch_size or automatic_batch_size(self.model, checkpoint.devices))
        self.started_with = self.batch_size
        self.recent = Recent(self.batches, recent)

    @property
    def batch_size(self) -> int:
        return self.batches.largest

    @batch_size.setter
    def batch_size(self, images: int) -> None:
        self.batches.largest = images

    @property
    def num_query_tokens(self) -> int:
        return int(self.model.config.num_query_tokens)

    def forget(self) -> None:
        """Forget the images seen lately."""
        self.recent.forget()
