"""`blip2 match`: a row for every image and text, scores, filtering by them, and what is refused."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from blip2cli import Blip2
from blip2cli.model.retrieval import RetrievalModel
from tests.conftest import Typed, approximate, rows_of

Match = Callable[..., Typed]

CAPTIONS = ["a red circle", "two gray rectangles", "a blue triangle and a teal circle", "nothing"]


@pytest.fixture
def match(typed: Callable[..., Typed], retrieval_checkpoint: Path) -> Match:
    """`blip2 match` with the random checkpoint, in fp32."""
    return lambda *words: typed("match", *words, "-m", retrieval_checkpoint, "--dtype", "fp32", "--workers", 0)


@pytest.fixture
def captions(photos: Path, tmp_path: Path) -> Path:
    """A manifest of two dozen pairs, the 6th without a caption, the 10th without an image."""
    names = sorted(str(path) for path in photos.rglob("*.*"))
    rows = [{"image": names[at % 12], "n": at, "caption": CAPTIONS[at % 4] + " circle" * (at // 4)} for at in range(24)]
    rows[6]["caption"], rows[10]["image"] = "", "gone.png"
    return write_lines(tmp_path / "captions.jsonl", rows)


def write_lines(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_every_image_meets_every_text(match: Match, photos: Path) -> None:
    done = match(photos, "-t", CAPTIONS[0], "--text", CAPTIONS[1])
    assert done.code == 0 and len(done.rows) == 24
    assert [row["text"] for row in done.rows[:4]] == [*CAPTIONS[:2], *CAPTIONS[:2]]
    assert list(done.rows[0]) == ["image", "text", "itc", "itm", "error"]
    assert all(-1 <= row["itc"] <= 1 and 0 <= row["itm"] <= 1 for row in done.rows)


def test_images_are_encoded_once_however_many_texts(
    match: Match, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: list[int] = []
    see = RetrievalModel._see
    monkeypatch.setattr(RetrievalModel, "_see", lambda self, pixels: encoded.append(len(pixels)) or see(self, pixels))
    assert len(match(photos, *[word for text in CAPTIONS for word in ("-t", text)]).rows) == 48
    assert sum(encoded) == 12


def test_scores_do_not_depend_on_batches_nor_on_other_texts(match: Match, captions: Path) -> None:
    one, all_together = (match(captions, "--batch-size", size).rows for size in (1, 64))
    assert [row["text"] for row in one] == [row["text"] for row in all_together]
    for name in ("itc", "itm"):
        pairs = [(a[name], b[name]) for a, b in zip(one, all_together, strict=True) if a["error"] is None]
        torch.testing.assert_close(*map(torch.tensor, zip(*pairs, strict=True)), rtol=0, atol=1e-5)


def test_a_manifests_caption_is_its_text_and_bad_rows_are_errors(match: Match, captions: Path) -> None:
    done = match(captions)
    assert done.code == 3 and len(done.rows) == 24 and "caption" not in done.rows[0]
    assert {at: row["error"] for at, row in enumerate(done.rows) if row["error"]} == {
        6: "missing: column caption is empty", 10: "missing: no such file"
    }  # fmt: skip
    assert [row["n"] for row in done.rows] == list(range(24))
    assert all((row["itc"] is None) == (row["error"] is not None) == (row["itm"] is None) for row in done.rows)


def test_one_score_alone_is_the_same_score_and_only_itc_takes_projections_of_texts(
    match: Match, captions: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = match(captions).rows
    projected: list[int] = []
    project = RetrievalModel._project_texts

    def counted(self: RetrievalModel, texts: Sequence[tuple[int, ...]]) -> torch.Tensor:
        projected.append(len(texts))
        return project(self, texts)

    monkeypatch.setattr(RetrievalModel, "_project_texts", counted)
    for name, other in (("itm", "itc"), ("itc", "itm")):
        alone = match(captions, "--scores", name).rows
        assert bool(projected) == (name == "itc")
        assert [row[name] for row in alone] == approximate([row[name] for row in both]) and other not in alone[0]


def test_itm_is_not_computed_where_it_is_not_asked_for(
    match: Match, captions: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs: list[int] = []
    monkeypatch.setattr(RetrievalModel, "_match", lambda self, some: pairs.append(len(some)) or [0.5] * len(some))
    match(captions, "--scores", "itc")
    assert not pairs
    passed = match(captions, "--threshold", 0, "--threshold-on", "itc").rows
    assert sum(pairs) == sum(row["error"] is None for row in passed) < 22


@pytest.mark.parametrize("score", ["itc", "itm"])
def test_the_threshold_keeps_the_rows_that_reach_it_and_errors(match: Match, captions: Path, score: str) -> None:
    rows = match(captions).rows
    middle = median(rows, score)
    done = match(captions, "--threshold", middle, "--threshold-on", score)
    assert done.rows == approximate([row for row in rows if row["error"] or row[score] >= middle])
    assert len(done.rows) == 13
    assert "13 rows, 11 left out (below --threshold), 2 with errors" in done.err


def median(rows: list[dict], score: str = "itm") -> float:
    """Between two scores, so that the last digit of neither counts."""
    scores = sorted(row[score] for row in rows if row["error"] is None)
    return (scores[10] + scores[11]) / 2


@pytest.mark.parametrize("out", ["good.jsonl", "good.csv", "good.parquet", "shards"])
def test_a_filtering_run_that_was_cut_short_ends_as_one_that_was_not(match: Match, captions: Path, out: str) -> None:
    middle = median(match(captions).rows)
    filtered = (captions, "--threshold", middle, "--shard-size", 3, "--commit-every", 0, "--batch-size", 1)
    whole = match(*filtered, "--out", f"whole-{out}")
    assert whole.err.startswith("13 rows") and "11 left out" in whole.err
    for limit in (2, 5, 9, 15, 20, 24):
        summary = f"{limit}.json"
        match(*filtered, "--out", out, "--resume", "--limit", limit, "--summary", summary)
        assert json.loads(Path(summary).read_text())["resumed_at"] == {2: 0, 5: 2, 9: 5, 15: 9, 20: 15, 24: 20}[limit]
    assert files(Path(out)) == files(Path(f"whole-{out}"))
    again = match(*filtered, "--out", out, "--resume")
    assert again.err.startswith("0 rows") and files(Path(out)) == files(Path(f"whole-{out}"))


@pytest.mark.parametrize("out", ["o.jsonl", "o.jsonl.gz", "o.csv", "o.parquet", "o.arrow", "shards"])
def test_an_output_from_which_all_is_left_out_is_whole(match: Match, photos: Path, out: str) -> None:
    words = (photos, "-t", CAPTIONS[0], "--threshold", 1, "--out", out)
    done = match(*words, "--limit", 5)
    assert done.code == 0 and done.err.startswith("0 rows") and "5 left out" in done.err
    assert Path(out).exists()
    done = match(*words, "--resume")
    assert done.code == 0 and "5 before, 7 left out (below --threshold)" in done.err
    assert match(*words, "--resume").err.startswith("0 rows")


def files(out: Path) -> list:
    """What an output holds: rows of Parquet files, the bytes of others."""
    found = sorted(out.rglob("*.parquet")) if out.is_dir() else [out]
    return [pq.read_table(path).to_pylist() if path.suffix == ".parquet" else path.read_bytes() for path in found]


@pytest.mark.usefixtures("quick_start")
def test_replicas_leave_out_the_same_rows(match: Match, captions: Path) -> None:
    filtered = (captions, "--threshold", median(match(captions).rows), "--quiet")
    assert match(*filtered, "--devices", "cpu:1", "--out", "a.jsonl").code == 3
    assert match(*filtered, "--out", "b.jsonl").code == 3
    a, b = (rows_of(Path(name).read_text()) for name in ("a.jsonl", "b.jsonl"))
    assert len(a) == 13 and [row["n"] for row in a] == [row["n"] for row in b]


def test_a_text_may_name_columns(match: Match, photos: Path, tmp_path: Path) -> None:
    name = next(str(path) for path in photos.rglob("*.png"))
    labels = write_lines(tmp_path / "labels.jsonl", [{"image": name, "label": "cat"}, {"image": name, "label": None}])
    rows = match(labels, "-t", "a photo of a {label}", "-t", "{{}}").rows
    assert [(row["text"], row["error"]) for row in rows] == [
        ("a photo of a cat", None), ("{}", None), (None, "missing: column label is empty"), ("{}", None)
    ]  # fmt: skip


def test_texts_come_from_a_file(match: Match, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("a cat\n\na dog\n")
    rows = match(photos, "--texts", "texts.txt", "--limit", 1).rows
    assert [row["text"] for row in rows] == ["a cat", "a dog"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--threshold", "1.5", "-t", "x"], "--threshold 1.5 is not an ITM score"),
        (["--threshold-on", "itc", "-t", "x"], "--threshold-on needs --threshold"),
        (["--threshold", "0.5", "--threshold-on", "itm", "--scores", "itc", "-t", "x"], "needs that score"),
        (["--threshold", "0.5", "-t", "x", "--out", "x.jsonl", "--resume", "--retry-errors"], "--retry-errors"),
        (["-t", " "], "--text is empty"),
        (["-t", "x", "--text-column", "y"], "--text-column cannot be used with"),
        ([], "no text is given"),
        (["-t", "a {label}"], "uses column label"),
    ],
)
def test_what_does_not_go_together_is_said(match: Match, photos: Path, words: list[str], said: str) -> None:
    done = match(photos, *words)
    assert done.code == 2 and said in done.err and done.err.count("\n") == 2


def test_no_input_is_told(match: Match) -> None:
    assert "no input given" in match("-t", "x").err


def test_each_kind_of_checkpoint_is_refused_where_the_other_is_needed(
    typed: Callable[..., Typed], photos: Path, opt_checkpoint: Path, retrieval_checkpoint: Path
) -> None:
    writes = typed("match", photos, "-t", "x", "-m", opt_checkpoint)
    assert writes.code == 1 and "no heads" in writes.err and "Salesforce/blip2-itm-vit-g" in writes.err
    compares = typed("caption", photos, "-m", retrieval_checkpoint)
    assert compares.code == 1 and "no language model" in compares.err and "Salesforce/blip2-opt-2.7b" in compares.err


def test_python_matches_too(retrieval_checkpoint: Path, photos: Path) -> None:
    model = Blip2(str(retrieval_checkpoint), dtype="fp32", workers=0)
    path = next(photos.rglob("*.png"))
    rows = list(model.match([path, b"no image"], ["a {red} circle", "gray"]))
    assert [row["text"] for row in rows] == ["a {red} circle", "gray"] * 2
    assert all(0 <= row["itm"] <= 1 for row in rows[:2]) and all(row["error"] for row in rows[2:])
    assert list(next(model.match(path, "gray", scores="itc"))) == ["image", "text", "itc", "error"]


def test_a_row_that_had_an_error_keeps_it(typed: Callable[..., Typed], photos: Path) -> None:
    lines = [
        {"image": str(photos / "01.png"), "caption": None, "error": "timeout: 60 seconds"},
        {"image": str(photos / "01.png"), "caption": " ", "error": None},
        {"image": str(photos / "01.png"), "caption": "a red circle", "error": None},
    ]
    Path("captions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    rows = typed("match", "captions.jsonl", "--scores", "itc").rows
    assert [row["error"] for row in rows] == ["timeout: 60 seconds", "missing: column caption is empty", None]
    for words in (
        ("vqa", "captions.jsonl", "-p", "is it {caption}?"),
        ("embed", "captions.jsonl", "--features", "itc", "--text-column", "caption"),
    ):
        assert typed(*words).rows[0]["error"] == "timeout: 60 seconds"
