"""The demo's sample images, and how accuracy is counted."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from blip2cli.model.checkpoint import kernel_choice
from blip2cli.model.checkpoint.int8 import KERNELS
from blip2cli.tiny.accuracy import (
    INT8_KERNELS,
    OVERRIDE,
    Captioned,
    Material,
    Outcomes,
    Variant,
    features_table,
    runs,
    table,
    tally_caption,
    write_material,
)
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


def test_accuracy_forces_every_int8_kernel_there_is() -> None:
    assert tuple(KERNELS) == INT8_KERNELS and OVERRIDE == kernel_choice.OVERRIDE


def test_accuracy_compares_features_image_by_image() -> None:
    exact = np.array([[1, 0], [0, 2]], dtype=np.float32)
    turned = np.array([[3, 0], [3, 4]], dtype=np.float32)
    lines = features_table({"fp32": exact, "int8 onednn": turned}).splitlines()
    figures = [
        "| smallest | 1.00000 | 0.80000 |",
        "| mean | 1.00000 | 0.90000 |",
        "| at least 0.999 | 100.00% | 50.00% |",
    ]
    assert lines[2:] == figures


def test_a_kernel_that_does_not_run_is_left_out_of_accuracy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes((EXAMPLES / "red-circle.png").read_bytes())
    material = Material(tmp_path, [], [])
    assert not runs(material, "tiny", Variant("int8", "onednn-3bit"))
    assert "int8 onednn-3bit is left out: blip2: BLIP2_INT8_KERNEL is onednn-3bit" in capsys.readouterr().out


def test_finding_the_model_imports_nothing_heavy() -> None:
    code = "import sys, blip2cli.tiny as t; print(t.MODEL_DIR.is_dir(), {'torch', 'transformers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True set()"
