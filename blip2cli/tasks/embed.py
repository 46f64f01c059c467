"""Features: Q-Former outputs, pooled vision features, or text features, as tensors of a fixed shape."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from blip2cli.errors import UsageError
from blip2cli.inputs import Sources
from blip2cli.inputs.texts import Texts
from blip2cli.job import Job, Opt
from blip2cli.records import Batch, Column, Result
from blip2cli.tasks import source_of

if TYPE_CHECKING:
    import numpy as np
    import torch

    from blip2cli.model.batches import Failed
    from blip2cli.model.blip2 import Blip2Model
    from blip2cli.model.checkpoint import Checkpoint
    from blip2cli.stopwatch import Stopwatch


@dataclass(frozen=True)
class EmbedOptions:
    """What `blip2 embed` alone is told."""

    panel = "Features"
    features: Annotated[
        Literal["qformer", "vision", "text"], Opt("Q-Former outputs, pooled vision features, or features of texts.")
    ] = "qformer"
    pool: Annotated[Literal["none", "mean"] | None, Opt("mean averages the tokens. [default: none; texts: mean]")] = (
        None
    )
    store: Annotated[Literal["fp32", "fp16"], Opt("Precision of the numbers written.")] = "fp32"
    text: Annotated[tuple[str, ...], Opt("A text to embed; may be repeated.", metavar="TEXT")] = ()
    text_column: Annotated[str, Opt("Manifest column with texts to embed.", metavar="NAME")] = "text"

    @property
    def needs_input(self) -> bool:
        """Whether there is nothing to embed without INPUT."""
        return not self.text

    def validate(self) -> None:
        if self.text and self.features != "text":
            raise UsageError("--text needs --features text", "Images go in as INPUT.")
        if self.features == "text" and self.pool == "none":
            raise UsageError("--pool none does not go with --features text", "Texts differ in length; use --pool mean.")


class EmbedTask:
    """The embed task; a tensor column `features`, and for texts a column `text` before it."""

    def __init__(self, job: Job) -> None:
        self.options: EmbedOptions = job.options
        texts = self.options.features == "text"
        typed = (Texts(self.options.text),) if self.options.text else ()
        column = self.options.text_column if texts else None
        self.source: Sources = source_of(job, (*job.input.inputs, *typed), column, images=not texts)
        if texts and not all(hasattr(part, "manifest_text") for part in self.source.parts):
            raise UsageError("--features text reads manifests, and --text", "Images have no text to embed.")

    def columns(self, checkpoint: Checkpoint) -> tuple[Column, ...]:
        config, store = checkpoint.config, self.options.store
        if self.options.features == "vision":
            return (Column("features", "tensor", (config.vision_config.hidden_size,), store),)
        if self.options.features == "text":
            width = config.text_config.d_model if checkpoint.encoder_decoder else _opt_width(config.text_config)
            return (Column("text", "string"), Column("features", "tensor", (width,), store))
        width = config.qformer_config.hidden_size
        shape = (width,) if self.options.pool == "mean" else (config.num_query_tokens, width)
        return (Column("features", "tensor", shape, store),)

    def results(self, model: Blip2Model, batches: Iterator[Batch], watch: Stopwatch) -> Iterator[Result]:
        for batch in watch.timed("reading", batches):
            if self.options.features == "text":
                yield from self._text_results(model, batch, watch)
                continue
            with watch.phase("encoding"):
                features = self._image_features(model, batch)
            for row, at, error in zip(batch.rows, batch.image_of, batch.errors, strict=True):
                stored, failure = (None, None) if at is None else self._stored(features[at])
                yield Result(row, (stored,), error or failure)

    def _image_features(self, model: Blip2Model, batch: Batch) -> list[torch.Tensor | Failed]:
        return model.vision_output(batch) if self.options.features == "vision" else model.query_output(batch)

    def _text_results(self, model: Blip2Model, batch: Batch, watch: Stopwatch) -> Iterator[Result]:
        from blip2cli.model.requests import TooLong

        for row in batch.rows:
            features, error = None, None
            if not row.text:
                error = f"missing: nothing in column {self.options.text_column}"
            else:
                try:
                    with watch.phase("encoding"):
                        features, error = self._stored(model.text_output(row.text))
                except TooLong as too_long:
                    error = f"text-too-long: {too_long}"
            yield Result(row, (row.text, features), error)

    def _stored(self, features: torch.Tensor | Failed) -> tuple[np.ndarray | None, str | None]:
        """The features as they are written, pooled where that is asked for, or the error in their stead."""
        from blip2cli.model.batches import Failed

        if isinstance(features, Failed):
            return None, features.error
        pooled = self.options.pool == "mean" or self.options.features == "text"
        stored: Any = (features.mean(dim=0) if pooled and features.dim() > 1 else features).numpy()
        return stored.astype("float16") if self.options.store == "fp16" else stored, None


def _opt_width(config: Any) -> int:
    return int(getattr(config, "word_embed_proj_dim", None) or config.hidden_size)
