"""From token ids to text while the text is still being written."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

INCOMPLETE = "\ufffd"
"""What a tokenizer shows for bytes that are not a whole character yet."""


@dataclass
class Pieces:
    """A text in pieces, each as soon as no later token can change it; together they are
    the text of all tokens.

    `text` decodes token ids, and removes white space at both ends. `by_words` holds back
    the last word, because some tokenizers remove the space before a comma or before "n't"
    later.
    """

    text: Callable[[Iterable[int]], str]
    by_words: bool = False
    token_ids: list[int] = field(default_factory=list)
    given: int = 0

    def add(self, token: int) -> str:
        """The text that has become certain with this token; often nothing."""
        self.token_ids.append(token)
        certain = self.text(self.token_ids).rstrip(INCOMPLETE)
        if self.by_words:
            certain = certain.rpartition(" ")[0].rstrip()
        piece = certain[self.given :]
        self.given += len(piece)
        return piece

    def rest(self) -> str:
        """The text that was held back, once there are no more tokens."""
        return self.text(self.token_ids)[self.given :]
