"""Features of images or of texts, as tensors of a fixed shape."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from blip2cli.errors import UsageError
from blip2cli.records import Batch, Column, Result, RowError
from blip2cli.settings import Job, Kind, Opt, TaskOptions
from blip2cli.tasks import Needs, Task
from blip2cli.tasks.template import empty_column

if TYPE_CHECKING:
    import numpy as np
    import torch

    from blip2cli.host.stopwatch import Stopwatch
    from blip2cli.model.batches import Failed
    from blip2cli.model.blip2 import Blip2Model
    from blip2cli.model.checkpoint.record import Checkpoint
    from blip2cli.model.recent import PendingEncodings


@dataclass(frozen=True)
class EmbedOptions(TaskOptions):
    """The options of `blip2 embed` alone."""

    panel = "Features"
    features: Annotated[
        Literal["qformer", "vision", "text", "itc"],
        Opt("Q-Former outputs, pooled vision features, text features, or the features that ITC compares."),
    ] = "qformer"
    pool: Annotated[Literal["none", "mean"] | None, Opt("mean averages the tokens. [default: none; texts: mean]")] = (
        None
    )
    store: Annotated[Literal["fp32", "fp16"], Opt("Precision of the numbers written.")] = "fp32"
    text: Annotated[tuple[str, ...], Opt("A text to embed; may be repeated.", metavar="TEXT")] = ()
    text_column: Annotated[
        str | None, Opt("Manifest column with texts to embed. [default: text, with --features text]", metavar="NAME")
    ] = None

    @property
    def kind(self) -> Kind:
        """The kind of checkpoint that has these features."""
        return "retrieval" if self.features == "itc" else "generation"

    @property
    def texts_column(self) -> str | None:
        """The manifest column whose texts are embedded; None where images are."""
        texts = self.features == "text" or self.text
        return self.text_column or ("text" if texts else None)

    @property
    def needs_input(self) -> bool:
        """Whether there is nothing to embed without INPUT."""
        return not self.text

    def validate(self) -> None:
        if self.texts_column and self.features not in ("text", "itc"):
            name = "--text" if self.text else "--text-column"
            raise UsageError(f"{name} needs --features text or itc", "Give images as INPUT.")
        if self.features == "itc" and self.pool is not None:
            raise UsageError(
                "--pool cannot be used with --features itc", "ITC takes the best of an image's query tokens."
            )
        if self.features == "text" and self.pool == "none":
            raise UsageError(
                "--pool none cannot be used with --features text", "Texts differ in length; use --pool mean."
            )


class EmbedTask(Task):
    """The embed task; a tensor column `features`, and for texts a column `text` before it."""

    several_rows = False
    rows_each = 1

    def __init__(self, job: Job) -> None:
        self.options = job.options_as(EmbedOptions)
        column = self.options.texts_column
        self.own_text = "text" if column else None
        self.needs = Needs(
            images=column is None,
            text_columns=(column,) if column else (),
            texts=self.options.text,
            no_text=("images have no text to embed", "Give a manifest with texts, or --text without an input."),
        )

    def check_columns(self, names: Sequence[str], text_column: str | None) -> None:
        """Nothing to check: embedding refers to no other columns."""

    def columns(self, checkpoint: Checkpoint) -> tuple[Column, ...]:
        config, store = checkpoint.config, self.options.store
        if self.options.features == "itc":
            width = config.image_text_hidden_size
            if self.options.texts_column:
                return (Column("text", "string"), Column("features", "tensor", (width,), store))
            return (Column("features", "tensor", (config.num_query_tokens, width), store),)
        if self.options.features == "vision":
            return (Column("features", "tensor", (config.vision_config.hidden_size,), store),)
        if self.options.features == "text":
            assert checkpoint.family is not None, "a checkpoint that writes"
            width = checkpoint.family.text_width(config.text_config)
            return (Column("text", "string"), Column("features", "tensor", (width,), store))
        width = config.qformer_config.hidden_size
        shape = (width,) if self.options.pool == "mean" else (config.num_query_tokens, width)
        return (Column("features", "tensor", shape, store),)

    def results(self, model: Any, batches: Iterator[Batch], watch: Stopwatch) -> Iterator[Result]:
        read = watch.timed("reading", batches)
        if not self.options.texts_column:
            yield from self._image_results(model, read, watch)
            return
        for batch in read:
            yield from self._text_results(model, batch, watch)

    def _image_results(self, model: Any, batches: Iterator[Batch], watch: Stopwatch) -> Iterator[Result]:
        """The results for images. On CUDA a batch is begun before the one before it is read."""
        begun: deque[tuple[Batch, PendingEncodings]] = deque()
        for batch in batches:
            with watch.phase("encoding"):
                begun.append((batch, self._begin_features(model, batch)))
            if len(begun) > model.reads_late:
                yield from self._arrived(*begun.popleft(), watch)
        for batch, encodings in begun:
            yield from self._arrived(batch, encodings, watch)

    def _begin_features(self, model: Any, batch: Batch) -> PendingEncodings:
        if self.options.features == "itc":
            encodings: PendingEncodings = model.begin_image_projections(batch)
        elif self.options.features == "vision":
            encodings = model.begin_vision_output(batch)
        else:
            encodings = model.begin_query_output(batch)
        return encodings

    def _arrived(self, batch: Batch, encodings: PendingEncodings, watch: Stopwatch) -> Iterator[Result]:
        """The results for a batch, once its features are there."""
        with watch.phase("encoding"):
            features = encodings.wait()
        for row, at, error in zip(batch.rows, batch.image_of, batch.errors, strict=True):
            stored, failure = (None, None) if at is None else self._stored(features[at])
            yield Result(row, (stored,), error or failure)

    def _text_results(self, model: Any, batch: Batch, watch: Stopwatch) -> Iterator[Result]:
        texts = [row.text for row in batch.rows if row.text and row.to_compute]
        with watch.phase("encoding"):
            features = iter(self._text_features(model, texts))
        for row in batch.rows:
            if not row.to_compute:
                yield Result(row, (row.text, None), row.error)
            elif row.text:
                stored, error = self._stored(next(features))
                yield Result(row, (row.text, stored), error)
            else:
                yield Result(row, (row.text, None), empty_column(self.options.texts_column, row))

    def _text_features(self, model: Any, texts: Sequence[str]) -> list[torch.Tensor | Failed]:
        if self.options.features == "itc":
            features: list[torch.Tensor | Failed] = model.text_projections(texts)
            return features
        return [_text_output(model, text) for text in texts]

    def _stored(self, features: torch.Tensor | Failed) -> tuple[np.ndarray | None, RowError | None]:
        """The features as they are written, pooled if requested, or an error instead."""
        from blip2cli.model.batches import Failed

        if isinstance(features, Failed):
            return None, features.error
        pooled = self.options.pool == "mean" or self.options.features == "text"
        stored: Any = (features.mean(dim=0) if pooled and features.dim() > 1 else features).numpy()
        return stored.astype("float16") if self.options.store == "fp16" else stored, None


def _text_output(model: Blip2Model, text: str) -> torch.Tensor | Failed:
    from blip2cli.model.batches import Failed
    from blip2cli.model.checkpoint.tokenizer import TokenizerFailed
    from blip2cli.model.decoding.requests import TooLong

    try:
        return model.text_output(text)
    except TooLong as too_long:
        return Failed(RowError("text-too-long", str(too_long)))
    except TokenizerFailed as failed:
        return Failed(RowError("failed", str(failed)))
