"""Words in the wrong place: questions as inputs, and suffixes that are not those of a format."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from blip2cli.cli.misplaced import check_words
from blip2cli.outputs.target import OTHER_SUFFIXES
from tests.conftest import Typed

Run = Callable[..., Typed]
CIRCLE = Path(__file__).parents[2] / "docs" / "examples" / "red-circle.png"


@pytest.fixture
def photo(tmp_path: Path) -> str:
    shutil.copy(CIRCLE, tmp_path / "a.png")
    return "a.png"


@pytest.mark.parametrize(
    ("words", "called", "meant"),
    [
        (("vqa", "a.png", "how many people?"), "question", "blip2 vqa a.png -p 'how many people?'"),
        (
            ("vqa", "a.png", "is it red?", "is it a circle?", "--out", "o.csv"),
            "question",
            "blip2 vqa a.png -p 'is it red?' -p 'is it a circle?' --out o.csv",
        ),
        (("vqa", "people?"), "question", "blip2 vqa PHOTOS -p 'people?'"),
        (("caption", "a.png", "a photo of"), "prompt", "blip2 caption a.png -p 'a photo of'"),
        (("match", "a.png", "a red circle"), "text", "blip2 match a.png -t 'a red circle'"),
    ],
)
def test_a_text_among_the_inputs_is_answered_with_the_command(
    typed: Run, photo: str, words: tuple[str, ...], called: str, meant: str
) -> None:
    ran = typed(*words)
    text = next(word for word in words if " " in word or "?" in word)
    assert (ran.code, ran.err) == (2, f"blip2: no such input: {text}\n       If it is a {called}, type: {meant}\n")


def test_single_words_behind_an_input_may_be_classes(typed: Run, photo: str) -> None:
    ran = typed("classify", photo, "cat", "dog")
    assert ran.err.endswith("If it is a class, type: blip2 classify a.png --class cat --class dog\n")
    assert "If it is a class" not in typed("classify", "foto").err
    ran = typed("classify", photo, "--classes", "cat", "dog")
    assert ran.err.endswith("If it is a class, type: blip2 classify a.png --class cat --class dog\n")


def test_the_command_that_is_meant_runs(typed: Run, photo: str) -> None:
    hint = typed("vqa", photo, "what shape is it?").err.splitlines()[1].partition("blip2 ")[2]
    words = subprocess.run(["bash", "-c", f"printf '%s\\n' {hint}"], capture_output=True, text=True, check=True).stdout
    assert [row["answer"] for row in typed(*words.splitlines()).rows] == ["circle"]


@pytest.mark.parametrize("name", ["my photos", "what?", "a b/*.png", "s3://bucket/my photos", "who?.png"])
def test_paths_and_patterns_with_spaces_are_inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("my photos", "whats", "a b"):
        Path(folder).mkdir()
        shutil.copy(CIRCLE, folder)
    check_words("vqa", [name])


def test_the_alias_of_prompt_asks_the_question(typed: Run, photo: str) -> None:
    assert [row["question"] for row in typed("vqa", photo, "--question", "what shape is it?").rows] == [
        "what shape is it?"
    ]


def test_txt_is_a_text_file_for_each_image(typed: Run, photo: str) -> None:
    assert typed("caption", photo, "--format", "txt").code == 0
    assert Path("a.txt").read_text() == "a red circle"
    refused = typed("caption", photo, "--format", "txt", "--out", "captions.txt")
    assert refused.code == 2 and "captions.txt is one file" in refused.err and not Path("captions.txt").exists()


@pytest.mark.parametrize("suffix", OTHER_SUFFIXES)
def test_a_suffix_that_could_mean_several_formats_is_answered_with_them(typed: Run, photo: str, suffix: str) -> None:
    ran = typed("caption", photo, "--out", f"captions{suffix}")
    hint = OTHER_SUFFIXES[suffix].replace("{}", "captions")
    assert (ran.code, ran.err) == (
        2,
        f"blip2: the name of captions{suffix} does not say which format is meant\n       {hint}\n",
    )
