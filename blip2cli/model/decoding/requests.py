"""Requests to the decoder, and its completions."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from blip2cli.records import RowError

if TYPE_CHECKING:
    from blip2cli.model.retrieval import SeenImage


@dataclass(frozen=True, slots=True)
class Prefix:
    """What a decoder keeps of an image that has several prompts.

    `token_ids` are tokens that prompts begin with; `states` are the keys and values of
    the image's tokens and of these: [2, layers, heads, num_query_tokens + tokens, head
    width], a tensor a device.
    """

    token_ids: tuple[int, ...]
    states: list[torch.Tensor] = field(repr=False)

    def first(self, columns: int) -> list[torch.Tensor]:
        """The states of so many first tokens, the image's included."""
        return [part[:, :, :, :columns] for part in self.states]


@dataclass(eq=False, slots=True)
class EncodedImage:
    """An image as the language model sees it: query embeddings [num_query_tokens,
    language width].

    `uses` counts the requests for it that are left; while there is more than one, a
    decoder may keep the keys and values of the image's tokens in `prefix`. An image that
    could not be encoded has an `error`, and no embeddings. `seen` is the image as the
    model's ranker sees it, if that was asked for; `image_embeds`, [patches + 1, vision
    width], are there if texts about it are to be explained.
    """

    query_embeds: torch.Tensor
    uses: int = 1
    prefix: Prefix | None = field(default=None, repr=False)
    error: RowError | None = None
    seen: SeenImage | None = field(default=None, repr=False)
    image_embeds: torch.Tensor | None = field(default=None, repr=False)

    @property
    def shared(self) -> bool:
        """Whether the image's keys and values are used by other requests too."""
        return not (self.uses == 1 and self.prefix is None)


@dataclass(frozen=True, slots=True)
class Request:
    """One text to write.

    Args:
        key: whatever the caller needs to recognise the completion.
        image: the encoded image.
        prompt_ids: as the tokenizer gives them, special tokens included.
        lengths: the fewest and the most new tokens.
        draw: distinguishes the random numbers of requests that are sampled; (seed, draw)
            determines the text.
        forced: tokens that are written instead of chosen ones, followed by the end, to
            see how likely they are.
    """

    key: Any
    image: EncodedImage
    prompt_ids: tuple[int, ...]
    lengths: tuple[int, int]
    draw: tuple[int, int] = (0, 0)
    forced: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Completion:
    """The token ids written for a request, without the prompt and without the end token.

    If scores are asked for, `logprob` is the natural logarithm of the text's probability:
    the language model's own (softmax of its logits in fp32, without temperature and
    penalties), including the end token if the text ended with one; `scored` is the number
    of tokens that it includes. A request that could not be decoded has an `error`, and no
    tokens.
    """

    key: Any
    token_ids: tuple[int, ...]
    error: RowError | None = None
    logprob: float = 0.0
    scored: int = 0


@dataclass(slots=True)
class WrittenTokens:
    """The tokens of a text so far; `logprob` and `scored` are as in a Completion."""

    token_ids: list[int]
    logprob: float = 0.0
    scored: int = 0


class TooLong(Exception):
    """A text has more tokens than there is room for."""
