"""A prompt is text, whatever it says, and has an end."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from blip2cli.model.blip2 import Blip2Model
from blip2cli.model.checkpoint.find import find_checkpoint
from blip2cli.model.decoding.requests import TooLong
from blip2cli.settings import ModelSettings
from blip2cli.tiny import MODEL_DIR

ORDINARY = [
    "",
    " ",
    "a photo of",
    "Question: is 1 < 2?\nAnswer:",
    "  două  cercuri, 两个圆 <b>red</b> s> /s pad> < /s>",
    "<",
]
SPECIAL = ["</s>", "<pad>", "<unk>", "a</s>", "a </s> b<pad>c", "Question: <unk></s> <pad> Answer:"]


def model_of(checkpoint: Path) -> Blip2Model:
    return Blip2Model(find_checkpoint(ModelSettings(model=str(checkpoint), dtype="fp32", device="cpu")))


def tokenizer_of(folder: Path, checkpoint: Path) -> Any:
    """The tokenizer in a folder as a checkpoint with it loads it."""
    mixed = shutil.copytree(checkpoint, folder / "mixed")
    for file in folder.glob("tokenizer*.json"):
        shutil.copy(file, mixed)
    return find_checkpoint(ModelSettings(model=str(mixed), dtype="fp32", device="cpu")).load_tokenizer()


@pytest.fixture(scope="session")
def t5_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small SentencePiece tokenizer of the T5 kind, whose pieces hold the special tokens."""
    import sentencepiece

    folder = tmp_path_factory.mktemp("sentencepiece")
    corpus = [f"{word} <b> /s> {number}" for number, word in enumerate(Path(__file__).read_text().split())]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus), model_prefix=str(folder / "spiece"), vocab_size=200, hard_vocab_limit=False,
        pad_id=0, eos_id=1, unk_id=2, bos_id=-1, pad_piece="<pad>", minloglevel=2,
    )  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "T5Tokenizer"}))
    AutoTokenizer.from_pretrained(folder).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("family", ["tiny", "opt", "t5"])
def test_special_tokens_in_a_prompt_are_text(family: str, request: pytest.FixtureRequest) -> None:
    folder = MODEL_DIR if family == "tiny" else request.getfixturevalue(f"{family}_checkpoint")
    model, before = model_of(folder), AutoTokenizer.from_pretrained(folder)
    assert [model.prompt_ids(prompt) for prompt in ORDINARY] == [tuple(before(prompt).input_ids) for prompt in ORDINARY]
    for prompt in [*SPECIAL, "<image>", "<image></s><s>"]:
        start, *ids = model.prompt_ids(prompt)
        assert start == before("").input_ids[0], "the tokenizer's own start token stays"
        assert not set(ids) & set(before.all_special_ids)
        assert model.text(ids) == prompt.lower()


def test_special_tokens_are_text_to_a_sentencepiece_tokenizer(t5_tokenizer: Path, t5_checkpoint: Path) -> None:
    before, tokenizer = AutoTokenizer.from_pretrained(t5_tokenizer), tokenizer_of(t5_tokenizer, t5_checkpoint)
    assert tokenizer(ORDINARY).input_ids == before(ORDINARY).input_ids
    for prompt in [*SPECIAL, "<extra_id_0> red<extra_id_99>"]:
        *ids, end = tokenizer(prompt).input_ids
        assert end == before.eos_token_id, "the tokenizer's own end token stays"
        assert not set(ids) & set(before.all_special_ids)
        assert tokenizer.decode(ids) == prompt


def test_special_tokens_are_text_to_a_slow_tokenizer(t5_checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "ByT5Tokenizer"}))
    tokenizer = tokenizer_of(tmp_path, t5_checkpoint)
    assert not tokenizer.is_fast
    *ids, end = tokenizer("a</s><pad>").input_ids
    assert end == tokenizer.eos_token_id and not set(ids) & set(tokenizer.all_special_ids)
    assert tokenizer.decode(ids) == "a</s><pad>"


def test_half_a_surrogate_pair_is_spelt_out(opt_checkpoint: Path) -> None:
    model = model_of(opt_checkpoint)
    assert model.text(model.prompt_ids("a \ud83d b")) == "a \\ud83d b"


@pytest.mark.parametrize("family", ["opt", "t5"])
def test_prompts_have_a_bound(family: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(request.getfixturevalue(f"{family}_checkpoint"))
    room, word = model.prompt_room(10), " photo"
    assert room == {"opt": 160 - model.num_query_tokens - 10, "t5": 2048}[family]
    fits = room - len(model.prompt_ids(word)) + 1
    assert len(model.prompt_ids(word * fits, room)) == room
    with pytest.raises(TooLong, match=f"^{room + 1} tokens, {room} fit$"):
        model.prompt_ids(word * (fits + 1), room)
    monkeypatch.setattr(model, "tokenizer", None)
    with pytest.raises(TooLong, match=f"^{64 * room + 1} characters, {room} tokens fit$"):
        model.prompt_ids("x" * (64 * room + 1), room)


@pytest.mark.parametrize("family", ["opt", "t5"])
def test_texts_to_embed_have_a_bound(family: str, request: pytest.FixtureRequest) -> None:
    model = model_of(request.getfixturevalue(f"{family}_checkpoint"))
    for text in (" photo" * (model.prompt_room(0) + 1), "x" * 10_000_000):
        with pytest.raises(TooLong):
            model.text_output(text)
