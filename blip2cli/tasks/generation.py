"""What caption and vqa share: prompts in, texts out, rows back in the order of the input."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import TYPE_CHECKING, Any

from blip2cli.errors import UsageError
from blip2cli.model.checkpoint.tokenizer import TokenizerFailed
from blip2cli.model.decoding.requests import Request, TooLong
from blip2cli.records import Batch, Result, Row, RowError

if TYPE_CHECKING:
    from blip2cli.host.stopwatch import Stopwatch
    from blip2cli.model.batches import Failed
    from blip2cli.model.blip2 import Blip2Model
    from blip2cli.model.decoding.requests import EncodedImage
    from blip2cli.model.explain import Explanation
    from blip2cli.model.retrieval import SeenImage
    from blip2cli.settings import GenerationSettings


IDLE = 256
"""Consecutive error rows after which the current texts are finished first, so that rows do not pile up."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """One prompt of a row: its text (None: no prompt), and the output values that come before the written text.

    With `choices`, no text is generated: each choice is scored.
    """

    text: str | None
    before: tuple[Any, ...] = ()
    error: RowError | None = None
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class WrittenText:
    """A text that was written; `logprob`, `scored` and `token_ids` are as in a Completion.

    The completion itself is not kept: its key leads to the open row that holds this text, and what leads back to
    itself, a row with its image's bytes among it, stays in memory until Python next looks for such circles.
    """

    text: str
    logprob: float
    scored: int
    token_ids: tuple[int, ...] = ()
    explanation: Explanation | Failed | None = None


@dataclass(frozen=True, slots=True)
class WrittenRow:
    """An output row whose texts are written: in their order, or None with an error. `last`
    is as in a Result; `seen` is the image as the ranker sees it, if texts are ranked.
    """

    row: Row
    prompt: Prompt
    texts: list[WrittenText] | None
    error: RowError | None
    last: bool
    seen: SeenImage | None = None
    asked: AskedImage | None = None


@dataclass(frozen=True, slots=True)
class AskedImage:
    """What is needed to explain a text: its image with patches, and the prompt's tokens."""

    image: EncodedImage
    prompt_ids: tuple[int, ...]


@dataclass(slots=True)
class _Open:
    """An output row whose texts are still being written."""

    row: Row
    prompt: Prompt
    last: bool
    error: RowError | None = None
    seen: SeenImage | None = None
    missing: int = 0
    texts: dict[int, WrittenText] = field(default_factory=dict)
    asked: AskedImage | None = None


@dataclass(frozen=True)
class Generation:
    """Writes `copies` texts for every prompt of every row.

    Args:
        prompts: the prompts of a row; an output row each.
        settings: how to decode; `max_new_tokens` is set.
        copies: texts for each prompt.
        to_rank: whether images are encoded for the model's ranker, too.
        to_explain: whether images keep what it takes to explain texts.
    """

    prompts: Callable[[Row], Sequence[Prompt]]
    settings: GenerationSettings
    copies: int = 1
    to_rank: bool = False
    to_explain: bool = False

    def rows(self, model: Blip2Model, batches: Iterator[Batch], watch: Stopwatch) -> Iterator[WrittenRow]:
        """The output rows, in input order, as soon as all earlier ones are done."""
        check_length(model, self.settings)
        opened: deque[_Open] = deque()
        beams = self.settings.num_beams > 1
        read = watch.timed("reading", batches)
        for batch in read:
            requests = self._requests(model, chain([batch], read), watch, opened)
            completions = model.generate(requests, self.settings, self.copies if beams else 1)
            for completion in watch.timed("decoding", completions):
                entry, copy = completion.key
                if completion.error:
                    entry.error = completion.error
                else:
                    token_ids = completion.token_ids
                    text = WrittenText(model.text(token_ids), completion.logprob, completion.scored, token_ids)
                    entry.texts[copy if not beams else len(entry.texts)] = text
                entry.missing -= 1
                yield from self._done(opened)
            yield from self._done(opened)

    def _requests(
        self, model: Blip2Model, batches: Iterator[Batch], watch: Stopwatch, opened: deque[_Open]
    ) -> Iterator[Request]:
        """The requests of the batches, up to one after which there were none for IDLE rows."""
        idle = 0
        for batch in batches:
            with watch.phase("encoding"):
                images = self._encoded(model, batch)
            rows = zip(batch.rows, batch.image_of, batch.errors, strict=True)
            waiting = [
                request
                for row, at, error in rows
                for request in self._row_requests(model, row, None if at is None else images[at], error, opened)
            ]
            for request in waiting:
                request.image.uses += 1
            yield from waiting
            idle = 0 if waiting else idle + len(batch.rows)
            if idle >= IDLE:
                return

    def _encoded(self, model: Blip2Model, batch: Batch) -> list[EncodedImage]:
        if self.to_explain:
            return model.encode_to_explain(batch)
        return model.encode_to_rank(batch) if self.to_rank else model.encode(batch)

    def _row_requests(
        self, model: Blip2Model, row: Row, image: EncodedImage | None, error: RowError | None, opened: deque[_Open]
    ) -> Iterable[Request]:
        prompts = self.prompts(row)
        most = self.settings.max_new_tokens or 1
        if image is not None:
            error = error or image.error
        for number, prompt in enumerate(prompts):
            entry = _Open(row, prompt, last=number == len(prompts) - 1, error=error or prompt.error)
            entry.seen = None if image is None else image.seen
            opened.append(entry)
            if entry.error or image is None:
                continue
            try:
                ids = model.prompt_ids(prompt.text, model.prompt_room(most))
            except TooLong as too_long:
                entry.error = RowError("prompt-too-long", str(too_long))
                continue
            except TokenizerFailed as failed:
                entry.error = RowError("failed", str(failed))
                continue
            if self.to_explain:
                entry.asked = AskedImage(image, ids)
            if prompt.choices:
                yield from self._choices(model, image, entry, ids)
                continue
            entry.missing = self.copies
            copies = 1 if self.settings.num_beams > 1 else self.copies
            for copy in range(copies):
                draw = (row.index, number * self.copies + copy)
                yield Request((entry, copy), image, ids, (self.settings.min_new_tokens, most), draw)

    def _choices(self, model: Blip2Model, image: EncodedImage, entry: _Open, ids: tuple[int, ...]) -> Iterable[Request]:
        """A request for each of the choices."""
        forced = [model.answer_ids(choice) for choice in entry.prompt.choices]
        room = model.prompt_room(max(map(len, forced)) + 1)
        if len(ids) > room:
            entry.error = RowError("prompt-too-long", f"{len(ids)} tokens, {room} fit together with the choices")
        elif not all(forced):
            entry.error = RowError("missing", "a choice is empty")
        else:
            entry.missing = len(forced)
            yield from (
                Request((entry, at), image, ids, (0, len(token_ids)), forced=token_ids)
                for at, token_ids in enumerate(forced)
            )

    def _done(self, opened: deque[_Open]) -> Iterator[WrittenRow]:
        while opened and opened[0].missing == 0:
            entry = opened.popleft()
            copies = range(len(entry.texts))
            texts = None if entry.error or not copies else [entry.texts[copy] for copy in copies]
            yield WrittenRow(entry.row, entry.prompt, texts, entry.error, entry.last, entry.seen, entry.asked)


Values = Callable[[Row, Prompt, "list[WrittenText] | None"], tuple[Any, ...]]
"""Makes the values of a task's columns from a row, its prompt and its texts (None if there
are none)."""


def results_of(rows: Iterable[WrittenRow], values: Values) -> Iterator[Result]:
    """The written rows as a task's results."""
    for written in rows:
        empty = written.texts is not None and any(not text.text.strip() for text in written.texts)
        made = values(written.row, written.prompt, written.texts)
        yield Result(written.row, made, written.error, written.last, empty=empty)


def most_likely(texts: Sequence[WrittenText]) -> int:
    """The number of the most likely of several texts."""
    return max(range(len(texts)), key=lambda at: texts[at].logprob)


def score_values(texts: list[WrittenText] | None, several: bool) -> tuple[Any, ...]:
    """Each text's average log-probability per token, and its probability."""
    if texts is None:
        return (None, None)
    means = [short(text.logprob / max(text.scored, 1)) for text in texts]
    wholes = [short(math.exp(text.logprob)) for text in texts]
    return (means, wholes) if several else (means[0], wholes[0])


def short(number: float) -> float:
    """The number to six digits: the rest is noise."""
    return float(f"{number:.6g}")


def check_length(model: Blip2Model, settings: GenerationSettings) -> None:
    """Check that the model has room for `max_new_tokens` after an image and a prompt. Raises UsageError."""
    most = settings.max_new_tokens or 1
    room = model.prompt_room(most)
    if room < 1:
        raise UsageError(
            f"--max-new-tokens {most} is more than the model has room for", f"Give {most + room - 1} at most."
        )


def with_length(settings: GenerationSettings, default: int) -> GenerationSettings:
    """The settings with the task's own default for `max_new_tokens`."""
    return settings if settings.max_new_tokens else replace(settings, max_new_tokens=default)
