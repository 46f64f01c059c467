"""Texts that were typed where inputs go: the message has the command that was meant."""

from __future__ import annotations

import glob
import os
import shlex
import sys
from collections.abc import Sequence

from blip2cli.errors import UsageError
from blip2cli.host.storage import is_url

TEXT_OPTIONS = {
    "caption": ("prompt", "-p"),
    "vqa": ("question", "-p"),
    "match": ("text", "-t"),
    "classify": ("class", "--class"),
}
"""Command → what its texts are called, and their option."""

FILES_OF_TEXTS = ("--prompts", "--questions", "--texts", "--classes")
"""Options for a file of such texts, behind which texts are typed too."""

ONE_WORD = ("classify",)
"""Commands whose texts may be single words; those of others are mostly sentences."""


def check_words(task: str, inputs: Sequence[str]) -> None:
    """Check that no input is a text, such as a question, that an option takes. Raises UsageError."""
    if task not in TEXT_OPTIONS:
        return
    called, option = TEXT_OPTIONS[task]
    texts = [text for text in inputs if _is_text(text, task in ONE_WORD and len(inputs) > 1)]
    if texts:
        meant = _as_typed(texts, option, named=len(texts) < len(inputs))
        raise UsageError(f"no such input: {texts[0]}", f"If it is a {called}, type: {meant}")


def _is_text(name: str, one_word: bool) -> bool:
    """Whether an input that does not exist has spaces, or ends as questions do, or may be `one_word`."""
    words = len(name.split()) > 1 or name.endswith("?") or (one_word and name.isalnum())
    return words and not is_url(name) and not os.path.lexists(name) and not glob.glob(name)


def _as_typed(texts: Sequence[str], option: str, named: bool) -> str:
    """The command line with an option before each of the texts; if it `named` no other input, with a place for one."""
    words = ["blip2"]
    for word in sys.argv[1:]:
        if word in texts:
            words += [] if named else ["PHOTOS"]
            words.append(option)
            named = True
        elif words[-1] in FILES_OF_TEXTS and not os.path.lexists(word):
            words[-1] = option
        words.append(word)
    return shlex.join(words)
