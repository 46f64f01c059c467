"""The tokenizers: lower-cased byte-level BPE in which every common word is one token.

Both models have the same vocabulary. The language model's tokenizer lays text out in OPT's manner, the retrieval
model's in BERT's.
"""

from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from .phrases import CAPTION_PROMPTS
from .scenes import COLOURS, KINDS

BOS, PAD, EOS, IMAGE = "</s>", "<pad>", "</s>", "<image>"
CLS, SEP = "<s>", "</s>"
SPECIALS = [CLS, PAD, EOS, "<unk>", IMAGE]
"""Ids 0 to 4, as OPT numbers the first four."""
BOS_ID, PAD_ID, EOS_ID, IMAGE_ID, CLS_ID = (SPECIALS.index(special) for special in (BOS, PAD, EOS, IMAGE, CLS))
RETRIEVAL_LENGTH = 32
"""Most tokens of a text that the retrieval model reads."""

_WORDS = (
    "a an the is are there not no yes does do image photo picture of in on to this that it contain what which "
    "color colour shape shapes present how many left right and or with one two three four question short answer "
    "describe background circles rectangles triangles"
)

_SHARED: dict[str, Any] = {
    "eos_token": EOS,
    "unk_token": EOS,
    "pad_token": PAD,
    "model_input_names": ["input_ids", "attention_mask"],
    "clean_up_tokenization_spaces": False,
}


def build_tokenizer() -> PreTrainedTokenizerFast:
    """The language model's tokenizer: BOS first, padding on the left."""
    tokenizer = _trained()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, BOS_ID)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=BOS, padding_side="left", **_SHARED)


def build_retrieval_tokenizer() -> PreTrainedTokenizerFast:
    """The retrieval model's tokenizer: CLS first, SEP last, padding on the right; the first word is like any other."""
    tokenizer = _trained()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{CLS} $A {SEP}", pair=f"{CLS} $A {SEP} $B {SEP}", special_tokens=[(CLS, CLS_ID), (SEP, EOS_ID)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        cls_token=CLS,
        sep_token=SEP,
        padding_side="right",
        model_max_length=RETRIEVAL_LENGTH,
        **_SHARED,
    )


def _trained() -> Tokenizer:
    """Train on the word list; the list is fixed, so the result is always the same."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1000,
        min_frequency=2,
        special_tokens=SPECIALS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_word_list(), trainer)
    return tokenizer


def _word_list() -> list[str]:
    inside = [*_WORDS.split(), *COLOURS, *KINDS, "0", "1", "2", "3"]
    starts = ["question", "what", "is", "does", "how", *(prompt.split()[0] for prompt in CAPTION_PROMPTS)]
    return [" " + word for word in inside] * 2 + starts * 2
