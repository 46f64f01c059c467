"""A checkpoint's tokenizer: whether its files exist and fit the model, and loading it."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blip2cli.errors import CheckpointError, reason
from blip2cli.model.checkpoint.explained import explained, is_panic
from blip2cli.model.checkpoint.files import (
    TOKENIZER_CONFIG,
    TOKENIZER_FILES,
    check_file,
    json_object,
    missing_of_tokenizer,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SAVE_PROCESSOR = "Save the processor there too: Blip2Processor's save_pretrained(FOLDER)."

COPY_TOKENIZER = "Copy the tokenizer of the checkpoint that this one was made from."

NEWER = "Fetch its files again; one saved by a newer version needs newer transformers and tokenizers here."

PROBE = "Question: how many cats? Answer:"
"""A text of which every language model's tokenizer knows some words."""

SPACE_MARKS = ("\u0120", "\u2581")
"""What stands for a space within tokens: in byte-level vocabularies, and in SentencePiece's."""

LONGEST_TOKEN = 64
"""Characters of a token: a text with more than this times the tokens that fit is not even
tokenised."""


def check_tokenizer_files(name: str, folder: Path) -> None:
    """Raise CheckpointError if files of the tokenizer are missing, or are plainly broken."""
    missing = missing_of_tokenizer(folder)
    if missing:
        raise CheckpointError(f"{name} has no tokenizer (no {', no '.join(missing)})", SAVE_PROCESSOR)
    for file in itertools.chain(*TOKENIZER_FILES):
        if (folder / file).exists():
            check_file(folder / file)
    for file in (TOKENIZER_CONFIG, "special_tokens_map.json", "added_tokens.json"):
        json_object(folder / file)


def load_tokenizer(name: str, folder: Path, embeddings: int) -> PreTrainedTokenizerBase:
    """The tokenizer, to which special tokens in a text, such as `</s>` or `<image>`, are
    text.

    `embeddings` is how many tokens the model knows. Raises CheckpointError.
    """
    from transformers import AutoTokenizer

    with explained(f"cannot load the tokenizer of {name} ({_vocabulary_file(folder)})", NEWER):
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    tokenizer.split_special_tokens = True
    if getattr(tokenizer, "is_fast", False):
        backend = tokenizer.backend_tokenizer
        backend.no_padding()  # settings in its file would pad or truncate prompts
        backend.no_truncation()
        _split_special_tokens(backend, tokenizer.all_special_tokens)
    _check_vocabulary(name, tokenizer, embeddings)
    return tokenizer


class TokenizerFailed(CheckpointError):
    """A tokenizer fails on a text, for example because the text is too much for its
    pattern."""


def token_ids(tokenizer: Any, text: str, **options: Any) -> tuple[int, ...]:
    """The token ids of a text. Raises TokenizerFailed."""
    try:
        return tuple(tokenizer(text, **options)["input_ids"])
    except BaseException as error:
        if not (isinstance(error, Exception) or is_panic(error)):
            raise
        raise TokenizerFailed(f"the checkpoint's tokenizer fails on a text: {reason(error)}", COPY_TOKENIZER) from error


def _vocabulary_file(folder: Path) -> str:
    """The file with the tokenizer's vocabulary."""
    return next(names[0] for names in TOKENIZER_FILES if (folder / names[0]).exists())


def _check_vocabulary(name: str, tokenizer: Any, embeddings: int) -> None:
    """Raise CheckpointError for a tokenizer that has no vocabulary, a larger one than the
    model, or no decoder, so that its texts would be tokens."""
    with explained(f"the tokenizer of {name} fails on a simple text", COPY_TOKENIZER):
        ids = tokenizer(PROBE)["input_ids"]
        decoded = tokenizer.decode(ids)
    if any(mark in decoded for mark in SPACE_MARKS):
        raise CheckpointError(f"the tokenizer of {name} has no decoder: it writes {decoded!r}", COPY_TOKENIZER)
    special = {token_id for token_id, token in tokenizer.added_tokens_decoder.items() if token.special}
    unknown = {tokenizer.unk_token_id}
    if not set(ids) - special - unknown:
        raise CheckpointError(f"the tokenizer of {name} has no vocabulary", COPY_TOKENIZER)
    ordinary = (token_id for token_id in tokenizer.get_vocab().values() if token_id not in special)
    largest = max(itertools.chain(ids, ordinary))
    if largest >= embeddings:
        raise CheckpointError(
            f"the tokenizer of {name} has tokens up to number {largest}, and the model knows {embeddings}",
            COPY_TOKENIZER,
        )


def _split_special_tokens(backend: Any, special_tokens: list[str]) -> None:
    """Split the first character of each special token from the rest: T5's vocabulary has
    them among its words."""
    from tokenizers import Regex, pre_tokenizers

    starts = "|".join(f"{re.escape(token[0])}(?={re.escape(token[1:])})" for token in special_tokens if token[1:])
    steps = [backend.pre_tokenizer, pre_tokenizers.Split(Regex(starts), "isolated")]
    backend.pre_tokenizer = pre_tokenizers.Sequence([step for step in steps if step is not None])
