"""What the decoder is asked, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from blip2cli.records import RowError


@dataclass(eq=False, slots=True)
class EncodedImage:
    """An image as the language model sees it: query embeddings [num_query_tokens, language width].

    `uses` counts the requests still to come for it; while there is more than one, a decoder may keep in `prefix` the
    keys and values [2, layers, heads, num_query_tokens, head width] of the image's tokens, a tensor a device. An image
    that could not be encoded has an `error`, and no embeddings.
    """

    query_embeds: torch.Tensor
    uses: int = 1
    prefix: list[torch.Tensor] | None = field(default=None, repr=False)
    error: RowError | None = None

    @property
    def shared(self) -> bool:
        """Whether the image's keys and values serve other requests too."""
        return not (self.uses == 1 and self.prefix is None)


@dataclass(frozen=True, slots=True)
class Request:
    """One text to write. `prompt_ids` are as the tokenizer gives them, special tokens included.

    `draw` tells apart the random sequences of requests that are sampled; (seed, draw) fixes the text. `lengths` are the
    fewest and the most new tokens. With `forced` nothing is chosen: these tokens are written, and then the text's end,
    to learn how likely they are.
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

    Where scores are asked for, `logprob` is the natural logarithm of the text's probability: the language model's own
    (softmax of its logits in fp32: no temperature, no penalty), the end token's with it where the text ended by one;
    `scored` counts the tokens in it. A request that could not be decoded has an `error`, and no tokens.
    """

    key: Any
    token_ids: tuple[int, ...]
    error: RowError | None = None
    logprob: float = 0.0
    scored: int = 0


@dataclass(slots=True)
class Written:
    """What has been written of a text; `logprob` and `scored` are as in a Completion."""

    token_ids: list[int]
    logprob: float = 0.0
    scored: int = 0


LONGEST_TOKEN = 64
"""Characters a token: a text that is longer than so many times its room is not even tokenised."""


class TooLong(Exception):
    """A text has more tokens than there is room for."""
