"""What --explain adds to rows: where the model looked for a text, as a map of the image's patches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any

from blip2cli.errors import UsageError
from blip2cli.records import Column, RowError
from blip2cli.settings import Job, Opt

if TYPE_CHECKING:
    from blip2cli.host.stopwatch import Stopwatch
    from blip2cli.model.batches import Failed
    from blip2cli.model.blip2 import Blip2Model
    from blip2cli.model.checkpoint.record import Checkpoint
    from blip2cli.model.explain import Explanation
    from blip2cli.tasks.generation import WrittenRow

Explain = Annotated[bool, Opt("Add where the model looked for each text: a map of the image, from 0 to 1.")]
ExplainWords = Annotated[bool, Opt("Also add such a map for each word of the text.")]
"""Options of the tasks that explain."""

MAP, WORDS, WORD_MAPS = "map", "words", "word_maps"
"""The columns of maps."""

STEPS = 256
"""Different values of a map, fewer than half precision has: such a file is smaller."""


@dataclass(frozen=True)
class MapColumns:
    """The columns of maps: whether there are any, and whether words have theirs."""

    explain: bool
    words: bool

    @classmethod
    def of(cls, job: Job, explain: bool, explain_words: bool) -> MapColumns:
        """Those of a job. Raises UsageError where they cannot be had."""
        asked = explain or explain_words
        if asked and job.model.device_map is not None:
            raise UsageError(
                "--explain cannot be used with --device-map", "It is for models that are on one device each."
            )
        return cls(asked, explain_words)

    @property
    def names(self) -> tuple[str, ...]:
        """The columns' names."""
        if not self.explain:
            return ()
        return (MAP, WORDS, WORD_MAPS) if self.words else (MAP,)

    def columns(self, checkpoint: Checkpoint) -> tuple[Column, ...]:
        """The columns; a map has a number for each patch that the vision model sees."""
        side = checkpoint.images.side // checkpoint.config.vision_config.patch_size
        kinds = (
            Column(MAP, "tensor", (side, side), "fp16"),
            Column(WORDS, "strings"),
            Column(WORD_MAPS, "numbers"),
        )
        return kinds[: len(self.names)]

    def values(self, explanation: Explanation | Failed | None) -> tuple[Any, ...]:
        """The columns' values; word maps one after the other, each row by row."""
        from blip2cli.model.explain import Explanation

        if not isinstance(explanation, Explanation):
            return (None,) * len(self.names)
        whole = ((explanation.map * STEPS).round() / STEPS).numpy().astype("float16")
        if not self.words:
            return (whole,)
        numbers = [round(value, 3) for value in explanation.word_maps.flatten().tolist()]
        return whole, list(explanation.words), numbers


def explained(
    rows: Iterator[WrittenRow], model: Blip2Model, maps: MapColumns, watch: Stopwatch
) -> Iterator[WrittenRow]:
    """The rows, with an explanation of the text that each shows: its only one, or the most likely of its choices."""
    if not maps.explain:
        yield from rows
        return
    for row in rows:
        with watch.phase("decoding"):
            explained_row = _explained(row, model, maps)
        yield explained_row


def _explained(row: WrittenRow, model: Blip2Model, maps: MapColumns) -> WrittenRow:
    from blip2cli.tasks.generation import most_likely

    if row.texts is None or row.asked is None:
        return row
    at = most_likely(row.texts) if row.prompt.choices else 0
    text = row.texts[at]
    if not text.token_ids:
        return row
    explanation = model.explain(row.asked.image, row.asked.prompt_ids, text.token_ids, maps.words)
    texts = [*row.texts[:at], replace(text, explanation=explanation), *row.texts[at + 1 :]]
    return replace(row, texts=texts, error=error_of(explanation))


def error_of(explanation: Explanation | Failed | None) -> RowError | None:
    """Why there is no map."""
    from blip2cli.model.batches import Failed

    return explanation.error if isinstance(explanation, Failed) else None
