"""From requests to completions: when a text ends, the next one takes its slot at once.

This is the one loop for greedy decoding, sampling, scores and beam search. A text has a
place: one slot of the language model's caches, or several. If shapes are fixed (on CUDA),
a step covers all slots, used or not, and goes from tokens to tokens without the host,
which reads them one step later. Elsewhere it covers the used slots, and when texts end,
the last ones move into the gaps.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch

from blip2cli.model.batches import Batches, Failed
from blip2cli.model.decoding.language_model import LanguageModel
from blip2cli.model.decoding.requests import Completion, Request, WrittenTokens
from blip2cli.model.decoding.search import Search, Tensors, Text
from blip2cli.model.graphs import PendingTensors, to_device
from blip2cli.model.memory import SLOTS_PER_IMAGE

FIRST = 4
"""Images whose texts are begun first on a CPU, so that the first are soon there. With few texts a step costs almost as
much as with many, because it reads all weights; so all others begin when the first text has ended."""


@dataclass(frozen=True)
class Step:
    """A step that was started: the texts that were being written, and what was chosen for
    them."""

    texts: list[Text]
    outcome: PendingTensors


class Decoder:
    """Decodes a stream of requests; completions come in the order in which texts end.

    Requests are taken from the stream only when a quarter of the places is free, so that
    the encoder, which produces them, does no more than is needed, and so that several are
    admitted together.
    """

    def __init__(self, language_model: LanguageModel, search: Search, slots: int) -> None:
        self.model, self.search = language_model, search
        self.fixed = language_model.runner.fixed
        self.asked = slots, max(1, slots // search.width)
        self.batches = Batches(self.asked[1])
        self.places = self.ended = 0
        self.held: list[Request] = []
        self._restart()

    @property
    def batch_size(self) -> int:
        """The size of encoding batches that fits the slots for which there is memory."""
        slots, places = self.asked
        return max(1, slots * self.batches.largest // (places * SLOTS_PER_IMAGE))

    def decode(self, requests: Iterable[Request]) -> Iterator[Completion]:
        """Decode all requests of the stream.

        If CUDA runs out of memory, half the places are used from then on, and nothing is
        lost. After any other failure, the current texts are written again, in smaller and
        smaller groups, until those that fail are alone.
        """
        stream = iter(requests)
        self.held = []
        self._restart()
        while True:
            fresh = self._next_requests(stream)  # outside the try: its exceptions are not failures of decoding
            try:
                self._admit(fresh)
                if not self.active:
                    return
                written = deque((text.request, text) for text in self._step())
            except torch.OutOfMemoryError:
                if self.places == 1:
                    raise
                self.batches.largest = self.places // 2
                stream = itertools.chain(self._unfinished(fresh), stream)
                self._restart()
                continue
            except Exception:
                unfinished = self._unfinished(fresh)
                written = deque(zip(unfinished, self.batches.compute(self._decode_alone, unfinished), strict=True))
                self._restart()
            while written:  # one by one, so that what belongs to a request is given up once it is complete
                yield from self._complete(*written.popleft())

    def stream(self, request: Request) -> Iterator[int]:
        """The tokens of one text, each as soon as it is written.

        Raises the model's exceptions.
        """
        self._restart()
        self._admit([request])
        (text,) = self.active.values()
        yielded = 0
        while self.active:
            self._step()
            token_ids = text.written[0].token_ids
            yield from token_ids[yielded:]
            yielded = len(token_ids)

    def _restart(self) -> None:
        """Forget all texts.

        Caches and tables of the same size are kept, for the functions that are recorded.
        """
        self.active: dict[int, Text] = {}
        self.begun = 0
        self.unread: deque[Step] = deque()
        if self.fixed and self.places == self.batches.largest:
            return
        self.places = self.batches.largest
        self.model.reset(self.places * self.search.width)
        self.search.reset(self.model)
        self.tokens = torch.zeros(self.model.slots, dtype=torch.long, device=self.model.device)

    def _unfinished(self, fresh: Sequence[Request]) -> list[Request]:
        """The requests whose texts are being written, and the fresh ones, admitted or
        not."""
        requests = {id(text.request): text.request for text in self.active.values()}
        requests.update((id(request), request) for request in fresh)
        return list(requests.values())

    def _decode_alone(self, requests: Sequence[Request]) -> list[Text]:
        """The texts of requests, decoded while no others are."""
        self._restart()
        self._admit(requests)
        written: dict[int, Text] = {}
        while self.active:
            written.update((id(text.request), text) for text in self._step())
        return [written[id(request)] for request in requests]

    def _complete(self, request: Request, text: Text | Failed) -> list[Completion]:
        image = request.image
        self.ended += 1
        image.uses -= 1
        if image.uses < 1:
            image.prefix = None
        if isinstance(text, Failed):
            return [Completion(request.key, (), text.error)] * self.search.returned
        return [
            Completion(request.key, tuple(written.token_ids), None, written.logprob, written.scored)
            for written in text.written
        ]

    def _next_requests(self, stream: Iterator[Request]) -> list[Request]:
        """The requests to admit now.

        If shapes are fixed, room for longer texts is made only while there is no text.
        """
        free = self.places - len(self.active)
        early = not self.fixed and not self.ended
        if self.active and (early or self.held or free < max(1, self.places // 4)):
            return []
        requests = self.held or (_first_texts(stream, free) if early else list(itertools.islice(stream, free)))
        if self.active and self.fixed and requests and not self._fits(requests):
            self.held = requests
            return []
        self.held = requests[free:]  # there may be fewer places than before
        return requests[:free]

    def _fits(self, requests: Sequence[Request]) -> bool:
        return self.model.fits(requests) and self.search.fits(requests)

    def _admit(self, requests: Sequence[Request]) -> None:
        """Start the texts of requests in free places."""
        if not requests:
            return
        if self.fixed and not self._fits(requests):
            self.model.grow(requests)
            self.search.grow(requests)
            self._advance_recorded()  # to record it while it can do no harm
        elif not self.fixed:
            self.search.grow(requests)
        free = (place for place in range(self.places) if place not in self.active)
        places = list(itertools.islice(free, len(requests)))
        firsts, columns = zip(*map(self.model.start, requests), strict=True)
        for place, request, used in zip(places, requests, columns, strict=True):
            self.active[place] = Text(request, place, used, [WrittenTokens([])])
        width = self.search.width
        self.model.admit(requests, [place * width for place in places])
        slots = to_device([[place * width + beam for beam in range(width)] for place in places], self.model.device)
        if not self.fixed:
            self.model.reserve(max(text.columns for text in self.active.values()) + 2)
        if self.fixed:
            self._copy_first_beams(slots[:, 0])
        self.tokens[slots] = to_device([[first] for first in firsts], self.model.device)
        seen = [self.model.seen(request) for request in requests]
        self.search.admit(requests, to_device(places, self.model.device), seen)

    def _step(self) -> list[Text]:
        """Write a token of each text; returns the texts that end."""
        self._launch()
        if self.fixed and len(self.unread) == 1:
            return []
        step = self.unread.popleft()
        texts = [text for text in step.texts if self.active.get(text.place) is text]
        ended = self.search.take(texts, step.outcome.wait())
        for text in ended:
            del self.active[text.place]
        if not self.fixed:
            self._close_gaps([text.place for text in ended])
        self.begun = len(self.active)
        if not self.active:
            self.unread.clear()
        if ended:
            self.batches.note_success()
        return ended

    def _launch(self) -> None:
        """Start a step."""
        if self.fixed:
            outcome = self._advance_recorded()
        else:
            self.model.reserve(max(text.columns for text in self.active.values()) + 2)
            outcome = self._advance(len(self.active) * self.search.width)
        for text in self.active.values():
            text.columns += 1
        self.unread.append(Step(list(self.active.values()), PendingTensors(outcome)))

    def _advance_recorded(self) -> Tensors:
        return self.model.runner.run("step", lambda: self._advance(self.model.slots))

    def _advance(self, slots: int) -> Tensors:
        """A step of the first slots, from tokens to tokens; returns what the host needs
        to know of it."""
        choice = self.search.choose(self._logits(slots))
        self.tokens[:slots] = choice.tokens
        if choice.parents is not None:
            self.model.reorder(choice.parents)
        return choice.outcome

    def _logits(self, slots: int) -> torch.Tensor:
        """The logits of the first slots.

        On a CPU, where every row of a step takes time, only the first beam of a new text
        is computed, because its beams are equal. New texts are the last of the active
        ones, from place `begun` on.
        """
        width, begun = self.search.width, self.begun * self.search.width
        if self.fixed or width == 1 or begun == slots:
            return self.model.step(self.tokens[:slots])
        firsts = slice(begun, slots, width)
        logits = [self.model.step_in(firsts, self.tokens[firsts]).repeat_interleave(width, 0)]
        self._copy_first_beams(self.model.rows[firsts])
        if begun:
            logits.insert(0, self.model.step(self.tokens[:begun]))
        return torch.cat(logits)

    def _copy_first_beams(self, slots: torch.Tensor) -> None:
        """Copy the sequences of first beams, in slots [n], to the other beams of their texts."""
        for beam in range(1, self.search.width):
            self.model.copy(slots, slots + beam)

    def _close_gaps(self, gaps: Sequence[int]) -> None:
        """Move the last texts to places where others have ended: on a CPU every slot of a
        step takes time."""
        targets = sorted(place for place in gaps if place < len(self.active))
        sources = [place for place in self.active if place >= len(self.active)]
        if not targets:
            return
        for source, target in zip(sources, targets, strict=True):
            text = self.active.pop(source)
            text.place = target
            self.active[target] = text
        old_places, new_places = (torch.tensor(places, device=self.model.device) for places in (sources, targets))
        self.search.copy(old_places, new_places)
        beams = torch.arange(self.search.width, device=self.model.device)
        old_slots = (old_places[:, None] * self.search.width + beams).view(-1)
        new_slots = (new_places[:, None] * self.search.width + beams).view(-1)
        self.model.copy(old_slots, new_slots)
        self.tokens[new_slots] = self.tokens[old_slots]


def _first_texts(stream: Iterator[Request], most: int) -> list[Request]:
    """The requests of the first images, if these have the same number of requests."""
    requests = list(itertools.islice(stream, 1))
    if requests:
        count = min(most, FIRST * requests[0].image.uses)
        requests += itertools.islice(stream, count - 1)
    return requests
