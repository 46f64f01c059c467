"""A streamed text is the text that is not streamed, in pieces that never have to be taken back."""

from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
import torch

from blip2cli.errors import Blip2Error
from blip2cli.model.blip2 import Blip2Model
from blip2cli.model.checkpoint.find import find_checkpoint
from blip2cli.model.decoding.beams import BeamSearch
from blip2cli.model.decoding.opt import OptDecoder
from blip2cli.model.decoding.pieces import Pieces
from blip2cli.model.decoding.requests import EncodedImage, Request
from blip2cli.settings import GenerationSettings, ModelSettings

SETTINGS = {
    "greedy": GenerationSettings(),
    "penalties": GenerationSettings(repetition_penalty=1.7, min_new_tokens=6),
    "sampling": GenerationSettings(temperature=0.9, top_p=0.9, seed=5),
    "beams": GenerationSettings(num_beams=3),
}


def load(checkpoint: Path) -> Blip2Model:
    return Blip2Model(find_checkpoint(ModelSettings(model=str(checkpoint), dtype="fp32", device="cpu")), 1)


def requests_of(model: Blip2Model, settings: GenerationSettings, uses: int) -> list[Request]:
    torch.manual_seed(0)
    images = [EncodedImage(torch.randn(model.num_query_tokens, 32), uses) for _ in range(8)]
    lengths = (settings.min_new_tokens, 20)
    prompts = [model.prompt_ids(text) for text in (None, "Question: how many? Answer:")]
    return [
        Request(at, image, prompts[at % 2], lengths, (at, 0)) for at, image in enumerate(images)
    ]  # fmt: skip


@pytest.mark.parametrize("kind", ["opt", "t5"])
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_all_pieces_together_are_the_text(
    request: pytest.FixtureRequest, kind: str, settings: GenerationSettings
) -> None:
    model = load(request.getfixturevalue(f"{kind}_checkpoint"))
    whole = {done.key: model.text(done.token_ids) for done in model.generate(requests_of(model, settings, 1), settings)}
    pieces = {asked.key: list(model.stream(asked, settings)) for asked in requests_of(model, settings, 2)}
    assert {key: "".join(parts) for key, parts in pieces.items()} == whole
    assert len(set(whole.values())) > 4, "the texts must differ for this to say much"
    assert (max(map(len, pieces.values())) > 3) == (settings.num_beams == 1)


def test_a_piece_comes_before_the_next_token_is_written(opt_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, steps, step = load(opt_checkpoint), [], OptDecoder.step
    monkeypatch.setattr(OptDecoder, "step", lambda self, tokens: steps.append(tokens) or step(self, tokens))
    settings = GenerationSettings(min_new_tokens=9)
    stream = model.stream(requests_of(model, settings, 2)[0], settings)
    for expected in range(1, 5):
        next(stream)
        assert len(steps) == expected
    assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()


@pytest.mark.parametrize(
    ("decoder", "method", "beams"), [(OptDecoder, "step", 1), (BeamSearch, "choose", 2)], ids=["greedy", "beams"]
)
def test_what_the_model_fails_at_is_raised(
    opt_checkpoint: Path, monkeypatch: pytest.MonkeyPatch, decoder: type, method: str, beams: int
) -> None:
    def fail(*given: object) -> None:
        raise RuntimeError("injected")

    monkeypatch.setattr(decoder, method, fail)
    model, settings = load(opt_checkpoint), GenerationSettings(num_beams=beams)
    with pytest.raises((RuntimeError, Blip2Error), match="injected"):
        list(model.stream(requests_of(model, settings, 2)[0], settings))


def pieces_of(text: Callable[[Iterable[int]], str], token_ids: list[int], by_words: bool) -> list[str]:
    pieces = Pieces(text, by_words)
    return [*map(pieces.add, token_ids), pieces.rest()]


@pytest.mark.parametrize("text", ["a red circle", "naïve café", "雨が降る 🙂 x", " two  blanks ", "", "\ufffd whole"])
@pytest.mark.parametrize("by_words", [False, True])
def test_characters_of_several_bytes_come_whole(opt_checkpoint: Path, text: str, by_words: bool) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: at for at, letter in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(False), decoders.ByteLevel()
    ids = tokenizer.encode(text).ids
    assert len(ids) == len(text.encode())
    pieces = pieces_of(lambda token_ids: tokenizer.decode(list(token_ids)).strip(), ids, by_words)
    assert "".join(pieces) == text.strip()
    assert "\ufffd" in text or not any("\ufffd" in piece for piece in pieces)


def test_a_tokenizer_that_takes_blanks_away_is_waited_for() -> None:
    words = ["it", " '", " ", "s", " red", " ", ",", " is", " n", "'t", " it", " ?"]

    def text(token_ids: Iterable[int]) -> str:
        joined = "".join(words[token] for token in token_ids)
        for before, after in ((" ,", ","), (" ?", "?"), (" ' ", "'"), (" n't", "n't")):
            joined = joined.replace(before, after)
        return joined.strip()

    written, expected = list(range(len(words))), "it's red, isn't it?"
    assert "".join(pieces_of(text, written, by_words=True)) == text(written) == expected
    assert "".join(pieces_of(text, written, by_words=False)) != expected, "for a tokenizer without such habits"
