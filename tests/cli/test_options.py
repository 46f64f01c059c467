"""The options that all commands share."""

import inspect
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from blip2cli import __version__
from blip2cli.cli import COMMANDS, function_of
from blip2cli.host.terminal import progress
from blip2cli.model.decoding import loop
from blip2cli.model.decoding.opt import OptDecoder
from tests.conftest import INT8, Typed

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
CIRCLE = EXAMPLES / "red-circle.png"
Run = Callable[..., Typed]


def captions(ran: Typed) -> list[str]:
    assert ran.code == 0, ran.err
    return [row["caption"] for row in ran.rows]


def test_rows_are_the_same_whatever_the_batch_size_and_the_workers(typed: Run, photos: Path) -> None:
    whole = typed("caption", photos, photos, "--dtype", "fp32", "--max-new-tokens", 8).rows
    assert len(whole) == 24
    for batch_size, workers in ((1, 0), (5, 2), ("auto", 1)):
        options = ("--batch-size", batch_size, "--workers", workers)
        assert typed("caption", photos, photos, "--dtype", "fp32", "--max-new-tokens", 8, *options).rows == whole


def test_limit_counts_input_rows(typed: Run) -> None:
    rows = typed("vqa", EXAMPLES, "-p", "what shape is it?", "-p", "is it red?", "--limit", 3).rows
    assert len(rows) == 6 and len({row["image"] for row in rows}) == 3


@pytest.mark.parametrize("dtype", ["auto", "fp32", "bf16", INT8])
def test_precisions_of_a_cpu(typed: Run, dtype: str) -> None:
    assert captions(typed("caption", CIRCLE, "--dtype", dtype, "--device", "cpu")) == ["a red circle"]


def test_the_model_is_a_folder_or_tiny_and_the_option_goes_before_the_environment(
    typed: Run, opt_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert captions(typed("caption", CIRCLE)) == ["a red circle"]
    assert captions(typed("caption", CIRCLE, "--model", opt_checkpoint)) != ["a red circle"]
    monkeypatch.setenv("BLIP2_MODEL", str(opt_checkpoint))
    assert captions(typed("caption", CIRCLE)) != ["a red circle"]
    assert captions(typed("caption", CIRCLE, "-m", "tiny")) == ["a red circle"]


def test_the_image_column_is_chosen(typed: Run) -> None:
    Path("m.csv").write_text(f"image,scan\nnothing.png,{CIRCLE}\n")
    (row,) = typed("caption", "m.csv", "--image-column", "scan").rows
    assert (row["image"], row["input_image"], row["caption"]) == (str(CIRCLE), "nothing.png", "a red circle")


def test_a_list_of_paths_comes_in_on_stdin(typed: Run) -> None:
    ran = typed("caption", "-", stdin=f"{CIRCLE}\n\n{EXAMPLES}/teal-triangle.png\ngone.png\n")
    assert ran.code == 3
    assert [row["caption"] for row in ran.rows] == ["a red circle", "a teal triangle", None]


def test_exact_pixels_read_large_jpegs_whole(typed: Run) -> None:
    from PIL import Image

    with Image.open(CIRCLE) as image:
        image.convert("RGB").resize((1000, 1000)).save("large.jpg", quality=95)
    reduced, exact = (typed("embed", "large.jpg", *words).rows[0] for words in ((), ("--exact-pixels",)))
    assert reduced["features"] != exact["features"]
    assert captions(typed("caption", "large.jpg", "--exact-pixels")) == ["a red circle"]


def test_the_summary_tells_the_same_to_people_and_to_schedulers(typed: Run) -> None:
    ran = typed("vqa", CIRCLE, "gone.jpg", "-p", "a?", "-p", "b?", "--out", "o.jsonl", "--summary", "s.json")
    assert ran.code == 2, "a file named on the command line must be there"
    Path("bad.png").touch()
    ran = typed("vqa", CIRCLE, "bad.png", "-p", "a?", "-p", "b?", "--out", "o.jsonl", "--summary", "s.json")
    summary = json.loads(Path("s.json").read_text())
    seconds, phases = summary.pop("seconds"), summary.pop("phases")
    running = seconds - phases["loading"]
    assert 0 < summary.pop("images_per_second") == pytest.approx(2 / running, rel=0.1)
    assert list(phases) == ["loading", "reading", "encoding", "decoding", "writing"]
    assert 0 < sum(phases.values()) <= seconds + 0.01
    assert summary == {
        "task": "vqa",
        "model": "tiny",
        "out": "o.jsonl",
        "rows": 4,
        "images": 2,
        "left_out": 0,
        "empty": 0,
        "resumed_at": 0,
        "already_there": 0,
        "errors_before": 0,
        "errors": 2,
        "errors_by_kind": {"empty": 2},
        "error_reasons": {"empty": {"0 bytes": 2}},
        "not_read": {},
        "batch_size": 64,
        "version": __version__,
    }
    assert ran.out == ""
    assert ran.err.startswith("4 rows to o.jsonl, 2 with errors, in ") and ran.err.endswith("\n  2 empty: 0 bytes\n")


def test_quiet_says_nothing_but_rows(typed: Run) -> None:
    ran = typed("caption", CIRCLE, "--quiet")
    assert (ran.err, len(ran.rows)) == ("", 1)


def test_progress_is_a_line_now_and_then_where_stderr_is_no_terminal(
    typed: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "PLAIN_EVERY", 0.0)
    monkeypatch.setattr(progress, "MEANINGFUL", 0.0)
    Path("bad.png").touch()
    ran = typed("embed", CIRCLE, "bad.png", CIRCLE)
    first, second, third, *_ = ran.err.splitlines()
    assert re.fullmatch(r"1 of 3 images, \d+:\d\d, 0 errors", first), "which says nothing of the speed to come"
    assert re.fullmatch(r"2 of 3 images, \d+:\d\d, \S+ images/s, 1 error, \d+:\d\d left", second)
    assert third.startswith("3 of 3 images, ")
    assert "images, " not in typed("embed", CIRCLE, "--quiet").err
    assert typed("embed", "-", stdin=f"{CIRCLE}\n").err.startswith("1 images, ")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("caption",), "no input given"),
        (("caption", "gone.jpg"), "no such input: gone.jpg"),
        (("caption", "empty"), "no images found in empty"),
        (("caption", CIRCLE, "--out", "o.doc"), "cannot tell the format of o.doc"),
        (("caption", CIRCLE, "--out", "no/o.jsonl"), "cannot write no/o.jsonl: there is no folder no"),
        (("caption", CIRCLE, "--summary", "no/s.json"), "cannot write no/s.json: there is no folder no"),
        (("caption", CIRCLE, "--out", "photos"), "photos holds other files, such as a.jpg"),
        (("caption", CIRCLE, "--out", "photos", "--overwrite"), "photos holds other files, such as a.jpg"),
        (
            ("caption", CIRCLE, "--out", "o.jsonl", "--format", "parquet"),
            "--format parquet cannot be used with o.jsonl",
        ),
        (
            ("caption", CIRCLE, "--out", "o.jsonl", "--retry-errors", "--overwrite"),
            "both --retry-errors and --overwrite are given",
        ),
        (("caption", CIRCLE, "--question", "x?"), "--question is not an option of this command, but of blip2 vqa"),
        (("vqa", CIRCLE, "--prefix", "sks"), "--prefix is not an option of this command, but of blip2 caption"),
        (("caption", CIRCLE, "--trigger", "sks"), "No such option: --trigger\n       Did you mean --prefix? See "),
        (
            ("search", "f.parquet", "x", "--like", "a.png"),
            "No such option: --like (Possible options: --image, --index, --quiet)\n       Did you mean --image? See ",
        ),
        (
            ("embed", CIRCLE, "--heatmap"),
            "No such option: --heatmap (Possible options: --help)\n       See ",
        ),
        (("caption", CIRCLE, "--num-beam", "3"), "No such option: --num-beam (Possible options: --num-beams)"),
        (("score", "answers.jsonl"), "no references are given"),
        (("search", "a red circle", __file__), "no such file: a red circle"),
        (("caption", CIRCLE, "--out", "o.jsonl", "--resume", "--overwrite"), "both --resume and --overwrite are given"),
        (("caption", CIRCLE, "--resume"), "--resume needs --out"),
        (
            ("caption", CIRCLE, "--format", "imagefolder"),
            "--format imagefolder needs --out\n       Give a folder, for example --out results.",
        ),
        (
            ("caption", CIRCLE, "--format", "coco"),
            "--format coco needs --out\n       Give a file, for example --out results.json.",
        ),
        (
            ("caption", CIRCLE, "--format", "csv"),
            "--format csv needs --out\n       Give a file or a folder, for example --out results.csv.",
        ),
        (
            ("caption", CIRCLE, "--format", "imagefolder", "--out", "o.jsonl"),
            "--format imagefolder writes a folder, and o.jsonl is a file",
        ),
        (
            ("caption", CIRCLE, "--format", "txt", "--out", "o.jsonl"),
            "--format sidecar writes a text file for each image, and o.jsonl is one file",
        ),
        (("vqa", CIRCLE, "--choices", "yes"), "--choices yes: at least two choices are needed"),
        (("caption", CIRCLE, "--num-captions", "2"), "--num-captions 2 needs as many beams, or sampling"),
        (("caption", CIRCLE, "--num-beams", "2", "--top-p", "0.5"), "--num-beams cannot be used with"),
        (("caption", CIRCLE, "--batch-size", "many"), "--batch-size many is neither auto nor a number from 1"),
        (("caption", CIRCLE, "--min-new-tokens", "9", "--max-new-tokens", "3"), "--min-new-tokens 9 is above"),
        (("caption", CIRCLE, "--device", "abacus"), "--device abacus is not a device"),
        (("caption", "m.csv"), "m.csv has no image column"),
        (("caption", "m.csv", "--image-column", "scan"), "m.csv has no column scan"),
        (("vqa", CIRCLE), "no question is asked"),
        (("vqa", CIRCLE, "-p", " "), "--prompt is empty"),
        (("vqa", CIRCLE, "--questions", "gone.txt"), "cannot read --questions gone.txt: No such file or directory"),
        (("vqa", CIRCLE, "--questions", "empty.txt"), "--questions empty.txt is empty"),
        (
            ("vqa", "m.csv", "--image-column", "photo"),
            "m.csv has no column question\n       It has: photo. Name another with --question-column.\n",
        ),
        (
            ("match", "m.csv", "--image-column", "photo"),
            "m.csv has no column text\n       It has: photo. Name another with --text-column.\n",
        ),
        (("embed", CIRCLE, "--text", "a"), "--text needs --features text or itc"),
        (("embed", CIRCLE, "--features", "text"), "images have no text to embed"),
        (("embed", "m.csv", "--features", "text", "--pool", "none"), "--pool none cannot be used with --features text"),
        (("caption", CIRCLE, "--nonsense"), "No such option"),
        (("caption", CIRCLE, "--num-beams", "x"), "--num-beams x is not a whole number"),
        (("caption", CIRCLE, "--limit", "0"), "--limit 0 is below 1"),
        (("caption", CIRCLE, "--dtype", "int4", "--device", "cpu"), "--dtype int4 runs on CUDA only"),
        (("caption", CIRCLE, "--dtype", "fp17"), "--dtype fp17 is not one of the choices"),
        (("caption", CIRCLE, "--out"), "Option '--out' requires an argument."),
        (("captoin", CIRCLE), "No such command 'captoin'."),
    ],
)
def test_wrong_usage_is_two_lines_and_exit_code_2(typed: Run, words: tuple[object, ...], message: str) -> None:
    Path("empty").mkdir()
    Path("photos").mkdir()
    Path("photos/a.jpg").touch()
    Path("empty.txt").touch()
    Path("m.csv").write_text("photo\na.jpg\n")
    before = sorted(Path().rglob("*"))
    ran = typed(*words)
    assert ran.code == 2 and ran.out == ""
    assert ran.err.startswith(f"blip2: {message}") and ran.err.count("\n") == 2
    assert sorted(Path().rglob("*")) == before


def test_a_model_that_cannot_be_had_is_two_lines_and_exit_code_1(typed: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    ran = typed("caption", CIRCLE, "--model", "nobody/nothing", "--out", "o.jsonl")
    assert ran.code == 1 and ran.err.count("\n") == 2 and "--model tiny" in ran.err
    assert not Path("o.jsonl").exists()
    Path("folder").mkdir()
    ran = typed("caption", CIRCLE, "--model", "folder")
    assert ran.code == 1 and ran.err.count("\n") == 2


def test_debug_raises_what_went_wrong(typed: Run) -> None:
    from blip2cli.errors import UsageError

    with pytest.raises(UsageError, match="no such input"):
        typed("caption", "gone.jpg", "--debug")


def test_version_and_help(typed: Run) -> None:
    assert typed("--version").out == f"blip2 {__version__}\n"
    for words in ((), ("--help",), ("-h",)):
        ran = typed(*words)
        assert ran.code == 0 and "caption" in ran.out and "embed" in ran.out
    assert "--num-captions" in typed("caption", "--help").out


def test_the_list_of_commands_has_the_first_paragraph_of_their_help() -> None:
    for name, summary in COMMANDS.items():
        assert inspect.cleandoc(function_of(name).__doc__ or "").partition("\n\n")[0] == summary


@pytest.mark.parametrize("words", [(), *[(name,) for name in COMMANDS]])
def test_help_says_no_types_of_flags_and_arguments(typed: Run, words: tuple[str, ...]) -> None:
    shown = typed(*words, "--help").out
    assert "--help" in shown and "<bool" not in shown and "<list" not in shown and "<str" not in shown


def test_an_option_without_its_value_is_answered_with_the_commands_help(typed: Run) -> None:
    assert typed("caption", CIRCLE, "--out").err.endswith("blip2 caption --help.\n")


def test_the_batch_size_that_worked_is_reported(typed: Run, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step = OptDecoder.step
    monkeypatch.setattr(loop, "FIRST", 64)  # texts at once, from the start

    def step_with_little_memory(self: OptDecoder, tokens: Sequence[int]) -> torch.Tensor:
        if len(tokens) > 9:
            raise torch.OutOfMemoryError("injected")
        return step(self, tokens)

    whole = typed("caption", photos).rows
    monkeypatch.setattr(OptDecoder, "step", step_with_little_memory)
    ran = typed("caption", photos, "--summary", "s.json")
    assert ran.rows == whole
    assert json.loads(Path("s.json").read_text())["batch_size"] == 1
    assert "warning: memory ran out with batches of 64; 1 worked" in ran.err
