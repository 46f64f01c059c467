"""--explain: maps of where the model looked, with their formula, for every precision, format and kind of text."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from blip2cli import Blip2
from blip2cli.commands.bench.pointing import Pointed, masks_of, scenes_of
from blip2cli.errors import UsageError
from blip2cli.images.decode import Reading
from blip2cli.images.loader import Loading, load
from blip2cli.inputs import ColumnChoice, open_source
from blip2cli.model import load_model
from blip2cli.model.batches import Failed
from blip2cli.model.checkpoint.find import find_checkpoint
from blip2cli.model.explain import words_of
from blip2cli.outputs import FORMATS
from blip2cli.records import Batch
from blip2cli.settings import ModelSettings
from blip2cli.tiny.scenes import render
from tests.conftest import Typed

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
CIRCLE = EXAMPLES / "red-circle.png"
TEXT = "a red circle"


@pytest.fixture(scope="module")
def tiny() -> Blip2:
    return Blip2("tiny", dtype="fp32", device="cpu", workers=0)


def batch_of(side: int) -> Batch:
    rows = open_source([str(CIRCLE)], ColumnChoice()).rows()
    return next(load(rows, Reading(side), 1, Loading(workers=0)))


def by_hand(model: Any, attend: Callable[[], torch.Tensor]) -> np.ndarray:
    """The map of a score that transformers' own model computes, by the formula in the documentation."""
    attentions: list[torch.Tensor] = []
    hooks = [
        layer.crossattention.attention.register_forward_hook(lambda *call: attentions.append(call[-1][1]))
        for layer in model.qformer.encoder.layer
        if layer.has_cross_attention
    ]
    score = attend()
    for hook in hooks:
        hook.remove()
    total = torch.zeros(attentions[0].shape[-1])
    for attention, gradient in zip(attentions, torch.autograd.grad(score, attentions), strict=True):
        total += (attention * gradient.clamp(min=0))[0].mean(dim=(0, 1)).detach()
    return (total[1:] / total[1:].max()).numpy()


@pytest.mark.parametrize("checkpoint", ["opt_checkpoint", "t5_checkpoint"])
def test_maps_of_texts_equal_grad_cam_of_transformers_own_model(
    checkpoint: str, request: pytest.FixtureRequest
) -> None:
    from transformers import Blip2ForConditionalGeneration

    folder = request.getfixturevalue(checkpoint)
    ours = load_model(find_checkpoint(ModelSettings(str(folder), dtype="fp32", device="cpu")), 1)
    (image,) = ours.encode_to_explain(batch_of(ours.checkpoint.images.side))
    prompt, text = ours.prompt_ids("what is it"), ours.answer_ids(TEXT)
    theirs = Blip2ForConditionalGeneration.from_pretrained(folder, attn_implementation="eager").eval()

    def score() -> torch.Tensor:
        patches = image.image_embeds.clone()[None]
        hidden = theirs.qformer(query_embeds=theirs.query_tokens, encoder_hidden_states=patches).last_hidden_state
        embedded = theirs.get_input_embeddings()
        queries = theirs.language_projection(hidden)
        if theirs.config.text_config.is_encoder_decoder:
            embeds = torch.cat([queries, embedded(torch.tensor([prompt]))], dim=1)
            logits = theirs.language_model(inputs_embeds=embeds, labels=torch.tensor([text])).logits[0]
        else:
            embeds = torch.cat([queries, embedded(torch.tensor([[*prompt, *text]]))], dim=1)
            logits = theirs.language_model(inputs_embeds=embeds).logits[0, -len(text) - 1 : -1]
        return logits[torch.arange(len(text)), torch.tensor(text)].sum()

    explanation = ours.explain(image, prompt, text, words=True)
    assert not isinstance(explanation, Failed)
    np.testing.assert_allclose(explanation.map.flatten().numpy(), by_hand(theirs, score), atol=2e-4)
    assert len(explanation.word_maps) == len(explanation.words) > 0


def test_maps_of_matching_equal_grad_cam_of_transformers_own_model(retrieval_checkpoint: Path) -> None:
    from transformers import Blip2ForImageTextRetrieval

    found = find_checkpoint(ModelSettings(str(retrieval_checkpoint), dtype="fp32", device="cpu"), "retrieval")
    ours = load_model(found, 1)
    (image,) = ours.see(batch_of(ours.checkpoint.images.side))
    (text,) = ours.read([TEXT])
    theirs = Blip2ForImageTextRetrieval.from_pretrained(retrieval_checkpoint, attn_implementation="eager").eval()
    count = theirs.query_tokens.shape[1]

    def score() -> torch.Tensor:
        embeds = theirs.embeddings(input_ids=torch.tensor([text.ids]), query_embeds=theirs.query_tokens)
        outputs = theirs.qformer(
            query_embeds=embeds, query_length=count, encoder_hidden_states=image.image_embeds.clone()[None]
        )
        logits: torch.Tensor = theirs.itm_head(outputs.last_hidden_state[:, :count]).mean(dim=1)
        return logits[0, 1]

    explanation = ours.explain(image, text)
    np.testing.assert_allclose(explanation.map.flatten().numpy(), by_hand(theirs, score), atol=2e-4)


def test_a_text_that_names_a_shape_points_at_it(tiny: Blip2) -> None:
    figure = Pointed()
    for scene in scenes_of(16):
        names = [f"a {shape.colour} {shape.kind}" for shape in scene.shapes]
        rows = tiny.match(render(scene), names, explain=True)
        for row, name, mask in zip(rows, names, masks_of(scene), strict=True):
            if names.count(name) == 1:
                figure.add(row["map"], mask)
    assert len(figure.points) > 30
    assert np.mean(figure.points) >= 0.85 and np.mean(figure.touches) >= 0.95
    assert np.mean([by_chance for by_chance, _ in figure.chances]) < 0.1


@pytest.mark.parametrize("dtype", ["bf16", "int8"])
def test_every_precision_of_this_processor_has_nearly_the_same_maps(tiny: Blip2, dtype: Any) -> None:
    other = Blip2("tiny", dtype=dtype, device="cpu", workers=0)
    for ask in (
        lambda model: model.match(CIRCLE, TEXT, explain=True),
        lambda model: model.caption(CIRCLE, explain=True),
        lambda model: model.answer(CIRCLE, "what shape is it?", explain=True),
    ):
        one, two = (next(ask(model))["map"].astype("float32").ravel() for model in (tiny, other))
        assert one @ two > 0.9 * np.linalg.norm(one) * np.linalg.norm(two)


def test_maps_do_not_depend_on_what_is_computed_with_them(tiny: Blip2) -> None:
    names = sorted(map(str, EXAMPLES.glob("*.png")))[:5]
    together = list(tiny.caption(names, explain_words=True))
    alone = [next(tiny.caption(name, explain_words=True)) for name in names]
    for one, other in zip(together, alone, strict=True):
        assert one["caption"] == other["caption"] and one["words"] == other["words"] == one["caption"].split()
        np.testing.assert_allclose(one["map"], other["map"], atol=0.005)
        np.testing.assert_allclose(one["word_maps"], other["word_maps"], atol=0.005)
        assert one["map"].shape == (8, 8) and one["map"].max() == 1 and one["map"].min() >= 0
        assert len(one["word_maps"]) == 64 * len(one["words"])


def test_the_chosen_answer_is_the_one_that_is_explained(tiny: Blip2) -> None:
    (one,) = tiny.answer(CIRCLE, "is it red?", choices=["yes", "no"], explain_words=True)
    (other,) = tiny.answer(CIRCLE, "is it red?", choices=["no", "yes"], explain_words=True)
    assert one["answer"] == other["answer"] and one["words"] == other["words"] == [one["answer"]]
    np.testing.assert_allclose(one["map"], other["map"], atol=0.005)


@pytest.mark.parametrize(
    ("pieces", "words"),
    [
        (["", "a", " red", " cir", "cle", ""], {"a": (1,), "red": (2,), "circle": (3, 4)}),
        (["don", "'", "t"], {"don't": (0, 1, 2)}),
        (["a", " ", "cat"], {"a": (0, 1), "cat": (2,)}),
        ([], {}),
    ],
)
def test_tokens_belong_to_the_words_that_they_write(pieces: list[str], words: dict[str, tuple[int, ...]]) -> None:
    def text_of(numbers: Sequence[int]) -> str:
        return "".join(pieces[number] for number in numbers)

    found = words_of(range(len(pieces)), text_of)
    assert {word.text: word.tokens for word in found} == words


def test_rows_with_errors_have_no_map_and_an_update_adds_maps(typed: Callable[..., Typed], tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").write_text("".join(json.dumps({"image": str(name)}) + "\n" for name in ("gone.png", CIRCLE)))
    out = tmp_path / "rows.jsonl"
    words = ["caption", tmp_path / "m.jsonl", "-m", "tiny", "--workers", 0, "--explain", "-o", out]
    assert typed(*words).code == 3
    with (tmp_path / "m.jsonl").open("a") as manifest:
        manifest.write(json.dumps({"image": str(EXAMPLES / "teal-triangle.png")}) + "\n")
    assert typed(*words, "--update").code == 3
    bad, *good = map(json.loads, out.read_text().splitlines())
    assert bad["map"] is None and bad["error"] == "missing: no such file"
    assert [np.array(row["map"]).shape for row in good] == [(8, 8), (8, 8)]
    refused = typed(*words[:-3], "-o", out, "--resume")
    assert refused.code == 2 and "explain was True" in refused.err


def test_wide_answers_have_maps_of_their_own(typed: Callable[..., Typed]) -> None:
    questions = ["-p", "shape=what shape is it?", "-p", "red=is it red?"]
    done = typed("vqa", CIRCLE, *questions, "--wide", "--explain", "-m", "tiny", "--workers", 0)
    assert list(done.rows[0]) == ["image", "shape", "shape_map", "red", "red_map", "error"]


def test_rows_that_are_left_out_are_not_explained(typed: Callable[..., Typed], monkeypatch: pytest.MonkeyPatch) -> None:
    from blip2cli.model.retrieval import RetrievalModel

    explained: list[str] = []
    usual = RetrievalModel.explain
    monkeypatch.setattr(RetrievalModel, "explain", lambda self, *pair: explained.append("") or usual(self, *pair))
    words = ["-t", TEXT, "-t", "a blue triangle", "--threshold", 0.5, "--explain"]
    done = typed("match", CIRCLE, *words, "-m", "tiny", "--workers", 0)
    assert [row["text"] for row in done.rows] == [TEXT] and len(explained) == 1


@pytest.mark.parametrize("name", [name for name, known in FORMATS.items() if "embed" not in known.tasks])
def test_formats_hold_maps_or_refuse_them_in_two_lines(name: str, typed: Callable[..., Typed], tmp_path: Path) -> None:
    task = ["vqa", "-p", "is it red?"] if FORMATS[name].tasks == ("vqa",) else ["caption"]
    file = {"coco": "out.json", "vqa": "out.json"}.get(name, "out")
    out = [] if name == "sidecar" else ["-o", tmp_path / file]
    done = typed(*task, CIRCLE, *out, "--format", name, "--explain", "-m", "tiny", "--workers", 0)
    if FORMATS[name].texts_alone:
        assert done.code == 2 and done.err.count("\n") == 2
        assert f"--explain cannot be used with --format {name}" in done.err and not (tmp_path / file).exists()
    else:
        assert done.code == 0, done.err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["match", "-t", "a", "--explain", "--scores", "itc"], "--explain needs ITM"),
        (["caption", "--explain-words", "--num-captions", 2, "--num-beams", 2], "--explain cannot be used with --num"),
        (["caption", "--explain", "--rank-by", "itm"], "blip2 match best.jsonl --text-column caption --explain"),
        (
            ["vqa", "-p", "is it red?", "--explain", "--device-map", "auto"],
            "--explain cannot be used with --device-map",
        ),
    ],
)
def test_what_cannot_be_explained_is_refused_in_two_lines(
    words: list[str], told: str, typed: Callable[..., Typed]
) -> None:
    refused = typed(words[0], CIRCLE, *words[1:], "-m", "tiny")
    assert refused.code == 2 and told in refused.err and refused.err.count("\n") == 2


def test_a_map_that_is_not_finite_is_an_error_beside_the_text(tiny: Blip2, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("blip2cli.model.blip2.maps_of", lambda *call, **more: torch.full((1, 8, 8), float("nan")))
    (row,) = tiny.caption(CIRCLE, explain=True)
    assert row["caption"] and row["map"] is None and "the map is not finite" in row["error"]


def test_arguments_are_those_of_the_command_line(tiny: Blip2) -> None:
    with pytest.raises(UsageError, match="--explain needs ITM"):
        list(tiny.match(CIRCLE, TEXT, scores="itc", explain=True))
