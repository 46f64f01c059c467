"""caption --rank-by: the best of several captions, as the retrieval model judges them."""

import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from blip2cli import Blip2
from blip2cli.errors import CheckpointError, UsageError
from blip2cli.tiny import RETRIEVAL_DIR
from tests.conftest import Typed, approximate, rows_of

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
SCENES = EXAMPLES / "scenes"
SCENE = SCENES / "red-circle-black-triangle.png"
SAMPLED = {"num_captions": 6, "temperature": 2.5, "seed": 3}
"""Such samples differ."""

OPTIONS = ("--num-captions", 6, "--temperature", 2.5, "--seed", 3, "--rank-by", "itm")
QUICK = ("--quiet", "--dtype", "fp32", "--workers", 0)
Run = Callable[..., Typed]


@pytest.fixture(scope="module")
def tiny() -> Blip2:
    return Blip2("tiny", dtype="fp32", batch_size=4, workers=0)


@pytest.mark.parametrize("score", ["itm", "itc"])
def test_captions_are_in_the_order_of_the_scores_that_match_gives(tiny: Blip2, score: Any) -> None:
    (row,) = tiny.caption(SCENE, rank_by=score, **SAMPLED)
    captions, scores = row["captions"], row[f"{score}_scores"]
    assert len(captions) > 2 and scores == sorted(scores, reverse=True)
    matched = list(tiny.match(SCENE, captions))
    assert [pair["text"] for pair in matched] == captions
    assert scores == approximate([pair[score] for pair in matched])


def test_equal_captions_are_one_and_what_is_not_kept_is_counted(tiny: Blip2) -> None:
    (plain,) = tiny.caption(SCENE, **SAMPLED)
    (ranked,) = tiny.caption(SCENE, rank_by="itm", **SAMPLED)
    assert set(ranked["captions"]) == set(plain["captions"]) and len(plain["captions"]) == 6
    assert ranked["dropped"] == 6 - len(ranked["captions"])
    (two,) = tiny.caption(SCENE, rank_by="itm", keep=2, **SAMPLED)
    assert two["captions"] == ranked["captions"][:2] and two["dropped"] == 4


def test_one_that_is_kept_is_a_caption(tiny: Blip2) -> None:
    (ranked,) = tiny.caption(SCENE, rank_by="itc", **SAMPLED)
    (best,) = tiny.caption(SCENE, rank_by="itc", keep=1, **SAMPLED)
    assert list(best) == ["image", "caption", "itc", "dropped", "error"]
    assert best["caption"] == ranked["captions"][0] and best["itc"] == approximate(ranked["itc_scores"][0])
    assert best["dropped"] == 5


def test_probabilities_stay_with_their_captions(tiny: Blip2) -> None:
    (plain,) = tiny.caption(SCENE, scores=True, **SAMPLED)
    (ranked,) = tiny.caption(SCENE, scores=True, rank_by="itm", **SAMPLED)
    of_caption = dict(zip(plain["captions"], plain["logprobs"], strict=True))
    assert ranked["logprobs"] == approximate([of_caption[caption] for caption in ranked["captions"]])


def test_captions_below_the_threshold_are_dropped(tiny: Blip2) -> None:
    (ranked,) = tiny.caption(SCENE, rank_by="itm", **SAMPLED)
    threshold = ranked["itm_scores"][1]
    (good,) = tiny.caption(SCENE, rank_by="itm", threshold=threshold, **SAMPLED)
    assert good["captions"] == ranked["captions"][:2] and good["dropped"] == 4
    (none,) = tiny.caption(SCENE, rank_by="itm", threshold=1.0, keep=1, **SAMPLED)
    assert (none["caption"], none["itm"], none["dropped"], none["error"]) == (None, None, 6, None)


def test_a_caption_alone_is_scored(tiny: Blip2) -> None:
    (row,) = tiny.caption(SCENE, rank_by="itm")
    assert row["caption"] == "a red circle and a black triangle" and row["itm"] > 0.5 and row["dropped"] == 0


def test_several_prompts_are_ranked_each(tiny: Blip2) -> None:
    rows = list(tiny.caption(SCENE, prompt=["a", "a photo of"], rank_by="itm", keep=1, **SAMPLED))
    assert [row["prompt"] for row in rows] == ["a", "a photo of"]
    assert all(row["dropped"] == 5 and row["itm"] is not None for row in rows)


def write_manifest(*alts: Any) -> None:
    rows = ({"image": str(SCENE), "alt": alt, "id": number} for number, alt in enumerate(alts))
    Path("m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_captions_of_a_manifest_compete(typed: Run) -> None:
    right, wrong = "a red circle and a black triangle", "a green rectangle and a blue triangle"
    write_manifest([wrong], [right, wrong], ["  "], None, [f"{wrong} " * 60])
    ran = typed("caption", "m.jsonl", *QUICK, "--prompt", "a yellow", "--rank-by", "itm", "--also-column", "alt")
    assert ran.code == 0, ran.err
    first, second, blank, nothing, long = ran.rows
    assert list(first) == ["image", "alt", "id", "captions", "sources", "itm_scores", "dropped", "error"]
    assert sorted(first["sources"]) == ["alt", "model"] and first["dropped"] == 0
    assert second["captions"][0] == right and second["sources"][0] == "alt" and len(second["captions"]) == 3
    assert blank["sources"] == nothing["sources"] == ["model"] and blank["dropped"] == 0
    assert long["sources"] == ["model"] and long["dropped"] == 1, "it is longer than the ranker can read"
    ran = typed("caption", "m.jsonl", *QUICK, "--rank-by", "itm", "--also-column", "nope")
    assert ran.code == 2 and "nope" in ran.err and len(ran.err.splitlines()) == 2


def test_a_list_in_csv_competes_as_texts_and_what_is_not_texts_is_an_error(typed: Run) -> None:
    right = "a red circle and a black triangle"
    write_manifest({"en": right}, [[right]], True)
    words = (*QUICK, "--prompt", "a yellow", "--rank-by", "itm", "--also-column")
    assert [row["error"] for row in typed("caption", "m.jsonl", *words, "alt").rows] == [
        "unsupported: column alt holds an object, not a text",
        "unsupported: column alt holds a list, not a text",
        "unsupported: column alt holds true or false, not a text",
    ]
    Path("m.csv").write_text(f'image,alt.en\n{SCENE},"[""{right}"", ""two""]"\n')
    ran = typed("caption", "m.csv", *words, "alt.en")
    assert ran.code == 0 and right in ran.rows[0]["captions"] and "two" in ran.rows[0]["captions"], ran.err
    (row,) = typed("match", "m.csv", "--text-column", "alt.en").rows
    assert row["error"] == "unsupported: column alt.en holds a list, not a text"


def test_texts_around_a_caption_are_not_ranked(typed: Run) -> None:
    words = ("caption", SCENE, *OPTIONS, *QUICK, "--keep", 1)
    (plain,), (around,) = typed(*words).rows, typed(*words, "--prefix", "sks, ", "--suffix", "!").rows
    assert around["caption"] == f"sks, {plain['caption']}!" and around["itm"] == plain["itm"]


def test_a_text_file_has_the_best_caption_and_there_is_none_without_one(typed: Run) -> None:
    words = ("caption", SCENES, "--limit", 2, *OPTIONS, *QUICK)
    best = [row["captions"][0] for row in typed(*words).rows]
    typed(*words, "--format", "sidecar", "--out", "texts")
    typed(*words, "--format", "webdataset", "--out", "shards")
    assert [path.read_text() for path in sorted(Path("texts").rglob("*.txt"))] == best
    with tarfile.open("shards/00000.tar") as shard:
        files = [shard.extractfile(member) for member in shard if member.name.endswith(".txt")]
        assert [file.read().decode() for file in files if file] == best
    typed(*words, "--threshold", 1, "--format", "sidecar", "--out", "none")
    typed(*words, "--threshold", 1, "--format", "webdataset", "--out", "empty")
    assert list(Path("none").rglob("*.txt")) == []
    with tarfile.open("empty/00000.tar") as shard:
        assert shard.getnames() == []


def test_a_run_that_is_resumed_ends_as_one_that_was_not_stopped(typed: Run) -> None:
    words = ("caption", SCENES, *OPTIONS, *QUICK)
    typed(*words, "--limit", 4, "--out", "whole.jsonl")
    typed(*words, "--limit", 2, "--out", "o.jsonl")
    ran = typed(*words, "--limit", 4, "--out", "o.jsonl", "--resume")
    assert ran.code == 0, ran.err
    rows, whole = rows_of(Path("o.jsonl").read_text()), rows_of(Path("whole.jsonl").read_text())
    assert rows == [approximate(row) for row in whole] and len(rows) == 4


def test_another_ranker_or_another_choice_is_another_run(typed: Run) -> None:
    words = ("caption", SCENES, "--limit", 1, "--out", "o.jsonl", *OPTIONS, *QUICK)
    typed(*words)
    for more, said in (
        (("--keep", 2), "keep was None, is 2"),
        (("--threshold", 0), "threshold was None, is 0.0"),
        (("--rank-by", "itc"), "rank_by was 'itm', is 'itc'"),
        (("--rank-model", RETRIEVAL_DIR), "rank_model was 'tiny', is "),
    ):
        ran = typed(*words, *more, "--resume")
        assert ran.code == 2 and said in ran.err


def test_rows_with_errors_are_computed_again(typed: Run) -> None:
    rows = [{"image": str(SCENE)}, {"image": "late.png"}]
    Path("m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ("caption", "m.jsonl", "--out", "o.jsonl", *OPTIONS, *QUICK)
    assert typed(*words).code == 3
    first, missing = rows_of(Path("o.jsonl").read_text())
    assert missing["captions"] is missing["itm_scores"] is missing["dropped"] is None and missing["error"]
    Path("late.png").write_bytes(SCENE.read_bytes())
    ran = typed(*words, "--resume", "--retry-errors")
    assert ran.code == 0, ran.err
    kept, retried = rows_of(Path("o.jsonl").read_text())
    assert kept == first and retried["captions"] and retried["error"] is None
    rows.insert(0, {"image": str(EXAMPLES / "red-circle.png")})
    Path("m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert typed(*words, "--update").code == 0
    assert [row["image"] for row in rows_of(Path("o.jsonl").read_text())][:2] == [kept["image"], retried["image"]]


def test_a_dry_run_says_what_ranks(typed: Run) -> None:
    ran = typed("caption", SCENES, *OPTIONS, "--dtype", "fp32", "--dry-run")
    told = dict(line.split(maxsplit=1) for line in ran.out.splitlines())
    assert told["ranker"] == f"tiny, in {RETRIEVAL_DIR}; it has the model's vision weights: images are encoded once"
    assert told["columns"] == "image, captions, itm_scores, dropped, error"
    assert told["memory"].startswith("14.5 MB of weights")
    ran = typed("caption", SCENES, *OPTIONS, "--rank-model", "nobody/nothing", "--dry-run")
    assert "tiny and nobody/nothing, which would be fetched" in ran.out


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        (("--keep", 1), "--keep needs --rank-by"),
        (("--threshold", 0.5), "--threshold needs --rank-by"),
        (("--rank-model", "tiny"), "--rank-model needs --rank-by"),
        (("--also-column", "alt"), "--also-column needs --rank-by"),
        (("--rank-revision", "v1"), "--rank-revision needs --rank-by"),
        (("--rank-by", "itm", "--rank-revision", "v1"), "--rank-revision needs --rank-model"),
        (("--rank-by", "itm", "--keep", 2), "--keep 2 is more than --num-captions 1"),
        (("--rank-by", "itm", "--threshold", -0.5), "--threshold -0.5 is not an ITM score"),
        (("--rank-by", "itc", "--threshold", 2), "--threshold 2 is not an ITC score"),
        (("--rank-by", "itm", "--device-map", "auto"), "--rank-by cannot be used with --device-map"),
        (("--rank-by", "itm", "--also-column", "alt", "--scores"), "--scores cannot be used with --also-column"),
        (("--rank-by", "itm", "--num-captions", 8), "--num-captions 8 needs as many beams, or sampling"),
        (("--rank-by", "itm", "--num-captions", 8, "--top-p", 0), "--top-p 0 gives 8 equal captions"),
        (("--rank-by", "itm", "--model", "a/b"), "--rank-by needs --rank-model"),
        (("--rank-by", "itm", "--rank-model", "./gone"), "--rank-model: there is no folder ./gone"),
        (("--rank-by", "itm", "--num-captions", 2, "--num-beams", 2, "--format", "coco", "--out", "o.json"),
         "--format coco holds one caption for each image"),
    ],
)  # fmt: skip
def test_what_cannot_be_ranked_is_said_in_two_lines(typed: Run, options: tuple[object, ...], fault: str) -> None:
    ran = typed("caption", SCENE, *options, "--quiet")
    assert ran.code in (1, 2) and ran.out == ""
    assert fault in ran.err and len(ran.err.splitlines()) == 2


def test_a_ranker_that_does_not_exist_is_said_in_python(tiny: Blip2) -> None:
    with pytest.raises(CheckpointError, match="--rank-model"):
        tiny.caption(SCENE, rank_by="itm", rank_model="./gone")
    with pytest.raises(UsageError, match="rank_by='itx'"):
        tiny.caption(SCENE, rank_by="itx")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="did you mean threshold"):
        tiny.caption(SCENE, rank_by="itm", treshold=0.5)


def test_an_image_goes_once_through_the_vision_model_for_all_its_captions_and_both_models(tiny: Blip2) -> None:
    images = sorted(EXAMPLES.glob("*.png"))
    counts: list[int] = []
    layer = tiny.model.model.vision_model.encoder.layers[0]
    hook = layer.register_forward_hook(lambda module, arguments, output: counts.append(len(output)))
    rows = list(tiny.caption(images, prompt=["a", "a photo of"], rank_by="itm", **SAMPLED))
    hook.remove()
    assert len(rows) == 2 * len(images) and all(row["itm_scores"] for row in rows)
    assert sum(counts) == len(images)
