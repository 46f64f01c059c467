"""The demo's sample images, and how accuracy is counted."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from blip2cli.tiny.accuracy import Captioned, Outcomes, table, tally_caption, write_material
from blip2cli.tiny.samples import write_samples

EXAMPLES = Path(__file__).resolve().parents[2] / "docs" / "examples"


def test_the_samples_in_docs_are_what_the_script_draws(tmp_path: Path) -> None:
    written = write_samples(tmp_path)
    shipped = {path.relative_to(EXAMPLES) for path in EXAMPLES.rglob("*") if path.suffix in (".png", ".jpg")}
    assert {path.relative_to(tmp_path) for path in written} == shipped
    for path in written:
        with Image.open(path) as new, Image.open(EXAMPLES / path.relative_to(tmp_path)) as old:
            difference = np.abs(np.asarray(new.convert("RGB"), int) - np.asarray(old.convert("RGB"), int))
        assert difference.mean() < 1  # JPEG and Pillow versions may differ a little
    assert (tmp_path / "questions.jsonl").read_text() == (EXAMPLES / "questions.jsonl").read_text()


def test_every_question_of_the_samples_has_its_image() -> None:
    rows = [json.loads(line) for line in (EXAMPLES / "questions.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == list(range(1, len(rows) + 1))
    assert all((EXAMPLES / row["image"]).is_file() and row["question"].endswith("?") for row in rows)


def test_a_caption_in_another_order_counts_as_named_but_not_as_word_for_word() -> None:
    tally: Outcomes = {
        f"{group}: {what}": []
        for group in ("captions, scenes of 2", "captions, all scenes")
        for what in ("every shape with its colour", "word for word, in order")
    }
    item = Captioned("a.png", "a red circle and a blue triangle", "captions, scenes of 2")
    tally_caption(tally, item, "a blue triangle and a red circle")
    assert list(tally.values()) == [[True], [False], [True], [False]]
    tally_caption(tally, item, "a red circle")
    assert list(tally.values()) == [[True, False], [False, False]] * 2
    assert "| 2 | 50.00 % |" in table({"fp32": tally})


def test_accuracy_writes_a_manifest_without_giving_the_answer_column_away(tmp_path: Path) -> None:
    material = write_material(tmp_path, images=3, scenes=3)
    rows = [json.loads(line) for line in (tmp_path / "questions.jsonl").read_text().splitlines()]
    assert len(rows) == len(material.asked)
    assert all(set(row) == {"image", "question", "reference", "group"} for row in rows)
    assert all((tmp_path / row["image"]).is_file() for row in rows)


def test_finding_the_model_imports_nothing_heavy() -> None:
    code = "import sys, blip2cli.tiny as t; print(t.MODEL_DIR.is_dir(), {'torch', 'transformers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True set()"
