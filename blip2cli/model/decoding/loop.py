"""Requests to completions, in flight: a text that ends makes room for the next at once.

This is the one loop, for greedy decoding, sampling, scores and beam search. A text takes a place: one slot of the
language model's caches, or several. Where shapes are fixed (on CUDA) a step covers all slots, in use or not, from
tokens to tokens without the host, which reads them one step late; elsewhere it covers those in use, and the last
texts move into the gaps.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch

from blip2cli.model.batches import Batches, Failed
from blip2cli.model.decoding.language_model import LanguageModel
from blip2cli.model.decoding.requests import Completion, Request, Written
from blip2cli.model.decoding.search import Search, Tensors, Text
from blip2cli.model.graphs import OnTheWay, sent
from blip2cli.model.memory import SLOTS_PER_IMAGE


@dataclass(frozen=True)
class Step:
    """A step that is on its way: the texts that were being written, and what was chosen for them."""

    texts: list[Text]
    outcome: OnTheWay


class Decoder:
    """Decodes a stream of requests; completions come in the order in which texts end.

    Requests are taken from the stream only when a quarter of the places is free, so that what produces them (the
    encoder) is asked for no more than is needed, and admission is done for several at a time.
    """

    def __init__(self, language_model: LanguageModel, search: Search, slots: int) -> None:
        self.model, self.search = language_model, search
        self.fixed = language_model.runner.fixed
        self.asked = slots, max(1, slots // search.width)
        self.batches = Batches(self.asked[1])
        self.places = 0
        self.held: list[Request] = []
        self._restart()

    @property
    def batch_size(self) -> int:
        """The encoding batch that goes with the slots for which there is memory."""
        slots, places = self.asked
        return max(1, slots * self.batches.largest // (places * SLOTS_PER_IMAGE))

    def decode(self, requests: Iterable[Request]) -> Iterator[Completion]:
        """Decode until the stream is dry.

        On CUDA out of memory, go on with half the places; nothing is lost. On any other failure, the texts in flight
        are written again, split until those that fail are alone.
        """
        stream = iter(requests)
        self.held = []
        self._restart()
        while True:
            fresh = self._due(stream)  # what the stream raises is not a failure of decoding
            try:
                self._admit(fresh)
                if not self.active:
                    return
                written = [(text.request, text) for text in self._step()]
            except torch.OutOfMemoryError:
                if self.places == 1:
                    raise
                self.batches.largest = self.places // 2
                stream = itertools.chain(self._in_flight(fresh), stream)
                self._restart()
                continue
            except Exception:
                again = self._in_flight(fresh)
                written = list(zip(again, self.batches.compute(self._alone, again), strict=True))
                self._restart()
            for each in written:
                yield from self._complete(*each)

    def stream(self, request: Request) -> Iterator[int]:
        """The tokens of one text, each as soon as it is written. What the model raises is raised."""
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
        """Forget all texts. What is recorded works on caches and tables of this size, which are kept."""
        self.active: dict[int, Text] = {}
        self.unread: deque[Step] = deque()
        if self.fixed and self.places == self.batches.largest:
            return
        self.places = self.batches.largest
        self.model.reset(self.places * self.search.width)
        self.search.reset(self.model)
        self.tokens = torch.zeros(self.model.slots, dtype=torch.long, device=self.model.device)

    def _in_flight(self, fresh: Sequence[Request]) -> list[Request]:
        """The requests whose texts are being written, and those that were just to be admitted."""
        known = {id(text.request): text.request for text in self.active.values()}
        return list((known | {id(request): request for request in fresh}).values())

    def _alone(self, requests: Sequence[Request]) -> list[Text]:
        """The texts of requests that are decoded with no others beside them."""
        self._restart()
        self._admit(requests)
        written: dict[int, Text] = {}
        while self.active:
            written.update((id(text.request), text) for text in self._step())
        return [written[id(request)] for request in requests]

    def _complete(self, request: Request, text: Text | Failed) -> list[Completion]:
        image = request.image
        image.uses -= 1
        if image.uses < 1:
            image.prefix = None
        if isinstance(text, Failed):
            return [Completion(request.key, (), text.error)] * self.search.returned
        return [
            Completion(request.key, tuple(written.token_ids), None, written.logprob, written.scored)
            for written in text.written
        ]

    def _due(self, stream: Iterator[Request]) -> list[Request]:
        """The requests to be admitted now. Where shapes are fixed, room for longer texts is made between texts only."""
        free = self.places - len(self.active)
        if self.active and (self.held or free < max(1, self.places // 4)):
            return []
        requests = self.held or list(itertools.islice(stream, free))
        if self.active and self.fixed and requests and not self._fits(requests):
            self.held = requests
            return []
        self.held = requests[free:]  # there may be fewer places than there were
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
            self._advance_recorded()  # so that it is recorded while it has nothing to spoil
        elif not self.fixed:
            self.search.grow(requests)
        free = (place for place in range(self.places) if place not in self.active)
        places = list(itertools.islice(free, len(requests)))
        firsts, columns = zip(*map(self.model.start, requests), strict=True)
        for place, request, used in zip(places, requests, columns, strict=True):
            self.active[place] = Text(request, place, used, [Written([])])
        width = self.search.width
        self.model.admit(requests, [place * width for place in places])
        slots = sent([[place * width + beam for beam in range(width)] for place in places], self.model.device)
        if not self.fixed:
            self.model.reserve(max(text.columns for text in self.active.values()) + 2)
        for beam in range(1, width):
            self.model.copy(slots[:, 0], slots[:, beam])
        self.tokens[slots] = sent([[first] for first in firsts], self.model.device)
        seen = [self.model.seen(request) for request in requests]
        self.search.admit(requests, sent(places, self.model.device), seen)

    def _step(self) -> list[Text]:
        """Write a token of each text; gives those that end."""
        self._launch()
        if self.fixed and len(self.unread) == 1:
            return []
        step = self.unread.popleft()
        texts = [text for text in step.texts if self.active.get(text.place) is text]
        ended = self.search.take(texts, step.outcome.received())
        for text in ended:
            del self.active[text.place]
        if not self.fixed:
            self._close_gaps([text.place for text in ended])
        if not self.active:
            self.unread.clear()
        if ended:
            self.batches.worked()
        return ended

    def _launch(self) -> None:
        """Begin a step."""
        if self.fixed:
            outcome = self._advance_recorded()
        else:
            self.model.reserve(max(text.columns for text in self.active.values()) + 2)
            outcome = self._advance(len(self.active) * self.search.width)
        for text in self.active.values():
            text.columns += 1
        self.unread.append(Step(list(self.active.values()), OnTheWay(outcome)))

    def _advance_recorded(self) -> Tensors:
        return self.model.runner.run("step", lambda: self._advance(self.model.slots))

    def _advance(self, slots: int) -> Tensors:
        """From tokens to tokens: a step of the first slots; gives what the host is to learn of it."""
        choice = self.search.choose(self.model.step(self.tokens[:slots]))
        self.tokens[:slots] = choice.tokens
        if choice.parents is not None:
            self.model.reorder(choice.parents)
        return choice.outcome

    def _close_gaps(self, gaps: Sequence[int]) -> None:
        """Move the last texts to where others have ended: on a CPU every slot that a step covers costs."""
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
