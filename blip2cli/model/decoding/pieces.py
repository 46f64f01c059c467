"""Token ids to text while they are still being written."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

INCOMPLETE = "\ufffd"
"""What a tokenizer shows for bytes that are no whole character yet."""


@dataclass
class Pieces:
    """A text in pieces, each as soon as no later token can change it; all together they are the text of all tokens.

    `text` decodes token ids, without white space around. `by_words` holds the last word back: there are tokenizers that
    take the blank before a comma, or before "n't", away again.
    """

    text: Callable[[Iterable[int]], str]
    by_words: bool = False
    token_ids: list[int] = field(default_factory=list)
    given: int = 0

    def add(self, token: int) -> str:
        """What is certain now that was not before; often nothing."""
        self.token_ids.append(token)
        certain = self.text(self.token_ids).rstrip(INCOMPLETE)
        if self.by_words:
            certain = certain.rpartition(" ")[0].rstrip()
        piece = certain[self.given :]
        self.given += len(piece)
        return piece

    def rest(self) -> str:
        """What was held back, once there are no more tokens."""
        return self.text(self.token_ids)[self.given :]
