"""Tokenizers as they are found in the world: what is missing or broken is told, and fails at no text."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from blip2cli.model import loaded
from tests.conftest import Typed
from tests.model.checkpoint.broken import change_json, refused

Run = Callable[..., Typed]


def test_no_tokenizer_is_told(opt: Path, t5: Path, retrieval: Path) -> None:
    for folder in (opt, t5, retrieval):
        for file in folder.glob("tokenizer*"):
            file.unlink()
        assert "has no tokenizer (no tokenizer.json, no tokenizer_config.json)" in refused(folder)
        assert "save_pretrained" in refused(folder)


def test_half_a_tokenizer_is_told(opt: Path) -> None:
    (opt / "tokenizer_config.json").rename(opt / "kept")  # another tokenizer would be taken for it
    assert "no tokenizer_config.json" in refused(opt)
    (opt / "kept").rename(opt / "tokenizer_config.json")
    (opt / "tokenizer.json").unlink()
    (opt / "vocab.json").write_text('{"a": 0}')
    assert "no merges.txt" in refused(opt)


def change_tokenizer(folder: Path, **model: Any) -> None:
    change_json(folder, "tokenizer.json", "model", **model)


def test_a_tokenizer_that_cannot_be_read_is_told(opt: Path) -> None:
    change_tokenizer(opt, type="Newer")
    message = refused(opt, load=True)
    assert "cannot load the tokenizer" in message and "tokenizer.json" in message and "newer" in message
    (opt / "tokenizer.json").write_text('{"model"')
    assert "cannot load the tokenizer" in refused(opt, load=True)


def test_a_tokenizer_without_words_is_told(opt: Path) -> None:
    change_tokenizer(opt, vocab={"<unk>": 0}, merges=[])
    assert "has no vocabulary" in refused(opt, load=True)


def test_a_tokenizer_with_more_words_than_the_model_is_told(opt: Path) -> None:
    saved = json.loads((opt / "tokenizer.json").read_text())
    change_tokenizer(opt, vocab={**saved["model"]["vocab"], "zzzz": 437})
    assert "tokens up to number 437, and the model knows 437" in refused(opt, load=True)


def test_a_tokenizer_whose_texts_would_be_tokens_is_told(opt: Path) -> None:
    saved = json.loads((opt / "tokenizer.json").read_text())
    assert saved["decoder"]["type"] == "ByteLevel"
    change_json(opt, "tokenizer.json", decoder=None)
    assert "the tokenizer of opt has no decoder: it writes '" in refused(opt, load=True).replace(f"{opt}", "opt")


def with_pattern(folder: Path, pattern: str) -> None:
    """Let the tokenizer part texts by a pattern first."""
    saved = json.loads((folder / "tokenizer.json").read_text())
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    change_json(
        folder, "tokenizer.json", pre_tokenizer={"type": "Sequence", "pretokenizers": [split, saved["pre_tokenizer"]]}
    )


def test_a_tokenizer_that_panics_is_told(opt: Path) -> None:
    good = (opt / "tokenizer.json").read_text()
    with_pattern(opt, "(")
    assert "cannot load the tokenizer" in refused(opt, load=True)
    (opt / "tokenizer.json").write_text(good)
    with_pattern(opt, r"(.+)+(?<=\n)")  # on which the pattern's search gives up
    assert "fails on a simple text" in refused(opt, load=True) and "Onig" in refused(opt, load=True)


def test_a_text_at_which_the_tokenizer_panics_is_an_error_row(typed: Run, opt: Path, photos: Path) -> None:
    with_pattern(opt, "(x+x+)+y")
    image = next(photos.glob("*.png"))
    ran = typed("vqa", image, "--model", opt, "--prompt", "x" * 60, "--prompt", "what?", "--dtype", "fp32")
    panicked, good = ran.rows
    assert ran.code == 3 and panicked["error"].startswith("failed: the checkpoint's tokenizer fails on a text")
    assert good["error"] is None


def test_the_tokenizer_is_read_before_the_weights(opt: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    change_tokenizer(opt, type="Newer")
    monkeypatch.setattr(loaded, "load_weights", lambda checkpoint: pytest.fail("the weights were loaded first"))
    refused(opt, load=True)
