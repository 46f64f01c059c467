"""The model: checkpoints, the encoder, decoding, and a public class for each kind of
checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from blip2cli.host.imports import load_object

if TYPE_CHECKING:
    from blip2cli.model.checkpoint.record import Checkpoint
    from blip2cli.settings import Kind

MODEL_CLASSES: dict[Kind, str] = {
    "generation": "blip2cli.model.blip2:Blip2Model",
    "retrieval": "blip2cli.model.retrieval:RetrievalModel",
}
"""Kind of checkpoint → the class that runs it, made from (Checkpoint, images encoded
together, or None)."""


def load_model(checkpoint: Checkpoint, batch_size: int | None = None) -> Any:
    """Load a checkpoint, with its ranker if it has one: a Blip2Model, or a RetrievalModel.

    `batch_size` is how many images are encoded together; None chooses what fits. Raises
    CheckpointError.
    """
    model_class = load_object(MODEL_CLASSES[checkpoint.kind])
    model = model_class(checkpoint, batch_size)
    return model if checkpoint.ranker is None else model.ranked_by(checkpoint.ranker)
