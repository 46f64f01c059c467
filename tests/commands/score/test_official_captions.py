"""Figures of captions equal the COCO caption evaluation's, image by image.

captions_official.json holds 40 made-up images, and what pycocoevalcap 1.2 gave for them with its own PTBTokenizer,
Bleu, Meteor, Rouge and Cider (Java 17, a UTF-8 locale), called as its eval.py does, once, outside this repository.
SPICE is not in it: its models are not on PyPI.
"""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Typed

OFFICIAL = json.loads((Path(__file__).parent / "captions_official.json").read_text(encoding="utf-8"))
IMAGES = OFFICIAL["images"]

needs_java = pytest.mark.skipif(shutil.which("java") is None, reason="needs Java, in which the tokenizer is written")


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """The fixture as COCO has it."""
    annotations = [{"image_id": image["image_id"], "caption": text} for image in IMAGES for text in image["references"]]
    images = [{"id": image["image_id"]} for image in IMAGES]
    (tmp_path / "coco.json").write_text(json.dumps({"images": images, "annotations": annotations}))
    results = [{"image_id": image["image_id"], "caption": image["caption"]} for image in IMAGES]
    (tmp_path / "results.json").write_text(json.dumps(results))
    return tmp_path


@needs_java
def test_every_image_has_the_figures_that_the_evaluation_gives_it(
    typed: Callable[..., Typed], files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JAVA_TOOL_OPTIONS", "-Duser.language=de -Duser.country=DE")  # where a half is 0,5
    run = typed("score", "results.json", "--references", "coco.json", "--per-row", "rows.jsonl")
    assert run.code == 0, run.err
    told = json.loads(run.out)
    expected = {name: round(100 * value, 2) for name, value in OFFICIAL["overall"].items()}
    assert told["metrics"] == expected
    assert "downloads nothing" in told["left_out"]["spice"]
    rows = [json.loads(line) for line in (files / "rows.jsonl").read_text().splitlines()]
    for row, image in zip(rows, IMAGES, strict=True):
        assert {name: row[name] for name in expected} == pytest.approx(
            {name: 100 * image[name] for name in expected}, abs=0.006
        )


@needs_java
def test_odd_line_breaks_in_a_caption_are_spaces_and_move_no_other_caption() -> None:
    from blip2cli.commands.score.captions import tokenized

    texts = ["a\rred dog", "two\u2028cats", "one\x0bmore\x85line", "", "the end."]
    assert list(tokenized(texts).values()) == ["a red dog", "two cats", "one more line", "", "the end"]


def test_without_java_captions_are_refused(
    typed: Callable[..., Typed], files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(files))
    run = typed("score", "results.json", "--references", "coco.json")
    assert run.code == 2
    assert run.err.splitlines()[0].startswith("blip2: captions are scored with Java, and there is none")
    exact = typed("score", "results.json", "--references", "coco.json", "--metrics", "exact_match")
    assert exact.code == 0
    same = [image["caption"].strip() in image["references"] for image in IMAGES]
    assert json.loads(exact.out)["metrics"] == {"exact_match": round(100 * sum(same) / len(same), 2)}


@needs_java
def test_a_metric_that_cannot_be_had_is_refused_where_it_is_asked_for(typed: Callable[..., Typed], files: Path) -> None:
    run = typed("score", "results.json", "--references", "coco.json", "--metrics", "cider,spice")
    assert run.code == 2
    assert run.err.startswith("blip2: spice cannot be computed: stanford-corenlp-3.6.0")


@needs_java
def test_meteor_that_dies_is_left_out_with_the_reason(
    typed: Callable[..., Typed], files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    java = files / "bin" / "java"
    java.parent.mkdir()
    java.write_text(
        '#!/bin/sh\ncase "$*" in *meteor-1.5.jar*) echo "no memory" >&2; exit 1;; '
        f'*) exec {shutil.which("java")} "$@";; esac\n'
    )
    java.chmod(0o755)
    monkeypatch.setenv("PATH", f"{java.parent}:/usr/bin:/bin")
    run = typed("score", "results.json", "--references", "coco.json")
    assert run.code == 0, run.err
    told = json.loads(run.out)
    assert "meteor" not in told["metrics"] and "no memory" in told["left_out"]["meteor"]
    assert told["metrics"]["cider"] == round(100 * OFFICIAL["overall"]["cider"], 2)


def test_without_pycocoevalcap_captions_are_refused(
    typed: Callable[..., Typed], files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("blip2cli.commands.score.captions.find_spec", lambda name: None)
    run = typed("score", "results.json", "--references", "coco.json")
    assert run.code == 2
    assert run.err.splitlines()[1].strip() == "Install it: pip install 'blip2cli[score]'"


@needs_java
def test_spice_takes_its_figures_from_its_program(
    typed: Callable[..., Typed], files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a stand-in for SPICE, whose models are not to be had here, that scores images by their place."""
    from blip2cli.commands.score import captions

    package = captions._package()
    (files / "package" / "spice" / "lib").mkdir(parents=True)
    (files / "package" / "tokenizer").symlink_to(package / "tokenizer")
    for name in ("stanford-corenlp-3.6.0.jar", "stanford-corenlp-3.6.0-models.jar"):
        (files / "package" / "spice" / "lib" / name).touch()
    monkeypatch.setattr(captions, "_package", lambda: files / "package")
    java = files / "bin" / "java"
    java.parent.mkdir()
    program = (
        "import json, sys; given, made = sys.argv[4], sys.argv[8]; "
        "scores = lambda entry: {'All': {'f': entry['image_id'] / 100}}; "
        "entries = json.load(open(given)); "
        "json.dump([{**entry, 'scores': scores(entry)} for entry in entries], open(made, 'w'))"
    )
    java.write_text(
        f'#!/bin/sh\ncase "$*" in *spice-1.0.jar*) exec {sys.executable} -c "{program}" "$@";; '
        f'*) exec {shutil.which("java")} "$@";; esac\n'
    )
    java.chmod(0o755)
    monkeypatch.setenv("PATH", f"{java.parent}:/usr/bin:/bin")
    run = typed("score", "results.json", "--references", "coco.json", "--metrics", "spice", "--per-row", "rows.jsonl")
    assert run.code == 0, run.err
    assert json.loads(run.out)["metrics"] == {"spice": 19.5}
    assert json.loads((files / "rows.jsonl").read_text().splitlines()[3])["spice"] == 3.0
