"""`blip2 models`: what there is, what is cached, what fits."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from blip2cli.commands import models
from blip2cli.commands.models import this_machine
from blip2cli.model.checkpoint.catalogue import PUBLISHED
from tests.conftest import Typed

Run = Callable[..., Typed]
REVISION = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Puts a checkpoint into an otherwise empty hub cache, under a hub id."""
    from huggingface_hub.utils import _cache_manager

    hub = tmp_path / "hub"
    monkeypatch.setattr(_cache_manager, "HF_HUB_CACHE", str(hub))

    def put(name: str, checkpoint: Path, *files: str) -> Path:
        repository = hub / f"models--{name.replace('/', '--')}"
        folder = repository / "snapshots" / REVISION
        folder.mkdir(parents=True)
        for path in [checkpoint / file for file in files] or checkpoint.iterdir():
            shutil.copy(path, folder)
        (repository / "refs").mkdir()
        (repository / "refs" / "main").write_text(REVISION)
        return folder

    return put


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "this_machine", lambda: models.Machine("cpu", 9_000_000_000))


def by_name(ran: Typed) -> dict[str, dict]:
    assert ran.code == 0, ran.err
    return {row["model"]: row for row in ran.rows}


def test_every_known_checkpoint_is_listed_with_what_fits(typed: Run, cache: Callable[..., Path]) -> None:
    ran = typed("models")
    assert [row["model"] for row in ran.rows] == ["tiny", "tiny", *(known.name for known in PUBLISHED)]
    rows = by_name(ran)
    assert rows["Salesforce/blip2-opt-2.7b"]["memory"]["fp32"] == 4 * rows["Salesforce/blip2-opt-2.7b"]["parameters"]
    assert rows["Salesforce/blip2-opt-2.7b"]["fits"] == ["fp16", "bf16", "int8"], "8 GB and one to spare"
    assert rows["Salesforce/blip2-flan-t5-xl"]["fits"] == ["bf16", "int8"], "no fp16"
    assert rows["Salesforce/blip2-flan-t5-xxl"]["fits"] == []
    assert {row["cached"] for row in rows.values()} == {None}


def test_what_is_cached_is_told_whole_or_in_part_and_others_are_found(
    typed: Run, cache: Callable[..., Path], opt_checkpoint: Path, t5_checkpoint: Path, tmp_path: Path
) -> None:
    cache("Salesforce/blip2-opt-2.7b", opt_checkpoint)
    cache("Salesforce/blip2-flan-t5-xl", t5_checkpoint, "config.json", "tokenizer.json")
    folder = cache("somebody/mine", t5_checkpoint)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    cache("somebody/bert", tmp_path, "config.json")
    rows = by_name(typed("models"))
    assert rows["Salesforce/blip2-opt-2.7b"]["cached"] == "whole"
    assert rows["Salesforce/blip2-opt-2.7b"]["revision"] == REVISION
    assert rows["Salesforce/blip2-flan-t5-xl"]["cached"] == "in part"
    for number, index in enumerate(("[]", '{"weight_map": []}', '{"weight_map": {"a": 3, "b": []}}', "[" * 100_000)):
        folder_of_index = cache(f"somebody/torn{number}", tmp_path, "config.json")
        (folder_of_index / "model.safetensors.index.json").write_text(index)
    assert typed("models").code == 0
    mine = rows["somebody/mine"]
    assert (mine["cached"], mine["language_model"]) == ("whole", "T5, 2 layers of 32")
    assert mine["size"] == sum(path.stat().st_size for path in folder.iterdir())
    assert "somebody/bert" not in rows
    assert by_name(typed("models", "somebody/mine"))["somebody/mine"]["folder"] == str(folder)


@pytest.mark.parametrize(("kind", "language_model"), [("opt", "OPT, 2 layers of 32"), ("t5", "T5, 2 layers of 32")])
def test_a_folder_is_taken_apart(typed: Run, request: pytest.FixtureRequest, kind: str, language_model: str) -> None:
    from safetensors.torch import load_file

    folder = request.getfixturevalue(f"{kind}_checkpoint")
    ((_, row),) = by_name(typed("models", folder)).items()
    assert (row["language_model"], row["image_side"], row["query_tokens"]) == (language_model, 32, 4)
    saved = load_file(folder / "model.safetensors").values()
    assert row["parameters"] == sum(row["parts"].values()) == sum(weight.numel() for weight in saved)
    assert row["dtypes"] == ["F32"] and row["tokenizer"] and not row["missing"] and not row["unused"]


def test_both_kinds_of_the_bundled_model_are_described(typed: Run) -> None:
    writes, compares = typed("models", "tiny").rows
    assert writes["language_model"].startswith("OPT, ") and "language model" in writes["parts"]
    assert compares["language_model"] is None and "retrieval heads" in compares["parts"]
    assert not any(row["missing"] or row["old"] for row in (writes, compares))


def test_an_old_checkpoint_runs_and_a_torn_one_does_not(typed: Run, opt_checkpoint: Path) -> None:
    shutil.copytree(opt_checkpoint, "old")
    config = json.loads(Path("old/config.json").read_text())
    del config["image_token_index"]
    Path("old/config.json").write_text(json.dumps(config))
    Path("old/processor_config.json").unlink()
    Path("old/pytorch_model.bin").touch()
    (row,) = typed("models", "old").rows
    assert row["old"] == ["num_query_tokens in the processor", "image_token_index in the configuration"]
    assert (row["missing"], row["unused"]) == ([], ["pytorch_model.bin"])
    Path("old/tokenizer.json").unlink()
    Path("old/model.safetensors").unlink()
    ran = typed("models", "old")
    assert ran.code == 1 and ran.rows[0]["missing"] == ["weights in safetensors", "tokenizer"]


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (None, "nothing is neither a folder nor in the hub's cache"),
        ({}, "nothing contains no checkpoint (no config.json)"),
        ({"config.json": "{"}, "nothing/config.json is not JSON"),
        ({"config.json": '{"model_type": "bert"}'}, "nothing is a bert checkpoint, not BLIP-2"),
        ({"config.json": '{"hidden_size": 8}'}, "nothing has no model_type in its config.json"),
        (
            {"config.json": '{"model_type": "blip-2"}', "model.safetensors": "rubbish"},
            "nothing/model.safetensors is cut short or broken",
        ),
        ({"config.json": "[" * 100_000}, "nothing/config.json is nested too deeply"),
        (
            {"config.json": '{"model_type": "blip-2", "vision_config": 3}'},
            "nothing has a configuration or weights that are not valid",
        ),
        (
            {"config.json": '{"model_type": "blip-2"}', "preprocessor_config.json": '{"size": {"height": "x"}}'},
            "nothing has a configuration or weights that are not valid",
        ),
        ({"config.json": '{"model_type": "\\u001b[2J\\nbert"}'}, "nothing is a  [2J bert checkpoint, not BLIP-2"),
    ],
)
def test_what_is_no_checkpoint_is_two_lines(
    typed: Run, cache: Callable[..., Path], made: dict[str, str] | None, message: str
) -> None:
    if made is not None:
        Path("nothing").mkdir()
        for name, text in made.items():
            Path("nothing", name).write_text(text)
    ran = typed("models", "nothing")
    assert ran.code == 1 and ran.err.startswith(f"blip2: {message}") and ran.err.count("\n") == 2


def test_neither_pytorch_nor_the_network_is_needed(tmp_path: Path) -> None:
    script = """
import socket, sys
from blip2cli.commands import models
from blip2cli.cli import main
models.GPU_SIGNS = ()
socket.socket.connect = socket.getaddrinfo = None
sys.argv = ["blip2", "models"]
try:
    main()
except SystemExit as end:
    print(end.code, [name for name in ("torch", "transformers") if name in sys.modules])
"""
    environment = {**os.environ, "HF_HUB_CACHE": str(tmp_path)}
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)
    assert ran.stdout.splitlines()[-1] in ("None []", "0 []"), ran.stderr


def test_where_there_may_be_a_gpu_pytorch_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "GPU_SIGNS", (str(tmp_path),))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (7, 9))
    gpu = this_machine()
    assert gpu == models.Machine("cuda", 7)
    listed = {entry.model: entry for entry in models.listed(gpu)}
    assert "int4" in listed["tiny"].memory and listed["tiny"].fits == ()
    dtypes = [listed[f"Salesforce/blip2-{name}"].dtype for name in ("opt-2.7b", "flan-t5-xl")]
    assert dtypes == ["fp16", "bf16"]
