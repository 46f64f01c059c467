"""Checkpoints as they are found in the world: what is missing, misnamed or broken is told, and never guessed."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from blip2cli.errors import CheckpointError
from blip2cli.model import load_model
from blip2cli.model.checkpoint.weights import check_report, report_of_loading
from tests.conftest import INT8, Typed
from tests.model.checkpoint.broken import change_json, found, refused

Run = Callable[..., Typed]
State = dict[str, torch.Tensor]

IMAGE = Path(__file__).parents[3] / "docs" / "examples" / "red-circle.png"

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0000\nsize 12345\n"


def not_numbers(state: State) -> State:
    name = "language_projection.weight"
    return {**state, name: torch.full_like(state[name], torch.nan)}


def change_weights(folder: Path, change: Callable[[State], State]) -> None:
    file = folder / "model.safetensors"
    changed = {name: weight.clone() for name, weight in change(load_file(file)).items()}
    save_file(changed, file, {"format": "pt"})


# Weights that are missing, or named otherwise


def prefixed(prefix: str) -> Callable[[State], State]:
    return lambda state: {prefix + name: weight for name, weight in state.items()}


def without(part: str) -> Callable[[State], State]:
    return lambda state: {name: weight for name, weight in state.items() if part not in name}


def unmerged(state: State) -> State:
    return {name.replace("q_proj.weight", "q_proj.base_layer.weight"): weight for name, weight in state.items()}


def with_adapter(state: State) -> State:
    return {**state, "language_model.model.decoder.layers.0.self_attn.q_proj.lora_A.default.weight": torch.ones(2, 32)}


def with_layer(state: State) -> State:
    name = "language_model.model.decoder.layers.1.fc1.bias"
    return {**state, name.replace("layers.1", "layers.2"): state[name]}


def lavis(state: State) -> State:
    return {
        name.replace("qformer.", "Qformer.bert.").replace("vision_model.", "visual_encoder."): weight
        for name, weight in state.items()
    }


def misshapen(state: State) -> State:
    return {**state, "language_projection.weight": torch.ones(32, 16)}


CHANGES = {
    "peft": (prefixed("base_model.model."), ["begin with base_model.model.", "not its wrapper"]),
    "data parallel": (prefixed("module."), ["begin with module.", "is missing 113 of the 113"]),
    "compiled": (prefixed("_orig_mod."), ["begin with _orig_mod."]),
    "projection": (
        without("language_projection"),
        ["is missing 2 of the", "language_projection.bias", "would be random"],
    ),
    "layer": (without("decoder.layers.1."), ["is missing 16 of the", "language_model.model.decoder.layers.1."]),
    "embedding": (without("embed_tokens"), ["is missing 1 of the", "language_model.model.decoder.embed_tokens.weight"]),
    "query tokens": (without("query_tokens"), ["is missing 1 of the", "query_tokens"]),
    "language model": (without("language_model."), ["language_model would be random"]),
    "base layer": (unmerged, ["is missing 2 of the", "adapter (LoRA) is not merged", "merge_and_unload"]),
    "adapter beside": (with_adapter, ["weights that its model does not have", "lora_A", "merge_and_unload"]),
    "one layer more": (with_layer, ["layers.2.fc1.bias", "smaller model"]),
    "lavis": (lavis, ["as LAVIS names them", "Convert"]),
    "shape": (misshapen, ["language_projection.weight is [32, 16] and should be [32, 32]", "different models"]),
}


@pytest.mark.parametrize(("change", "told"), CHANGES.values(), ids=CHANGES)
def test_weights_that_the_model_needs_are_never_random(
    opt: Path, change: Callable[[State], State], told: list[str]
) -> None:
    change_weights(opt, change)
    message = refused(opt)
    assert all(part in message for part in told), message


def test_a_head_that_is_not_there_is_told(t5: Path, retrieval: Path) -> None:
    assert not {name for name in load_file(t5 / "model.safetensors") if "lm_head" in name}, "it is tied"
    change_json(t5, "config.json", "text_config", tie_word_embeddings=False)  # as Flan-T5 says
    assert "is missing 1 of the" in refused(t5) and "language_model.lm_head.weight" in refused(t5)
    change_weights(retrieval, without("itm_head"))
    assert "itm_head would be random" in refused(retrieval)


def test_a_checkpoint_of_the_other_kind_is_told(opt: Path) -> None:
    change_json(opt, "config.json", architectures=["Blip2ForImageTextRetrieval"])
    assert "itm_head" in refused(opt) and "would be random" in refused(opt)


def test_what_may_be_absent_or_left_over_is_no_fault(opt: Path, t5: Path, retrieval: Path) -> None:
    assert "language_model.lm_head.weight" not in load_file(opt / "model.safetensors"), "it is tied"
    buffers = {"embeddings.position_ids": torch.arange(64), "vision_model.embeddings.position_ids": torch.arange(17)}
    change_weights(retrieval, lambda state: {**state, **buffers})  # which used to be saved
    bias = "language_model.decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
    change_weights(t5, lambda state: {**state, bias: torch.ones(32, 4)})
    change_weights(opt, lambda state: {**state, "itm_head.weight": torch.ones(2, 32)})
    assert found(retrieval).unused == found(t5).unused == ()
    assert found(opt).unused == ("itm_head.weight",), "a head for another use"


def test_names_of_earlier_versions_are_those_that_transformers_knows(opt: Path) -> None:
    weights = load_model(found(opt)).model.state_dict()
    reference = {name: weight.clone() for name, weight in weights.items()}  # which may be the file's own memory
    change_weights(opt, prefixed("blip."))  # the class's own prefix
    loaded = load_model(found(opt)).model.state_dict()
    assert all(torch.equal(weight, loaded[name]) for name, weight in reference.items())


@pytest.mark.parametrize("dtype", ["fp32", "fp16", "bf16", INT8])
def test_every_precision_is_checked_before_loading(opt: Path, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    change_weights(opt, without("language_projection"))
    with pytest.raises(CheckpointError, match="language_projection"):
        found(opt, dtype)


def test_what_transformers_reports_of_loading_is_judged_by_the_same_rule(opt: Path) -> None:
    from transformers import Blip2ForConditionalGeneration

    change_weights(opt, without("language_projection"))
    model, info = Blip2ForConditionalGeneration.from_pretrained(opt, output_loading_info=True)
    with pytest.raises(CheckpointError) as error:
        check_report(str(opt), report_of_loading(info, model))
    assert refused(opt).startswith(error.value.message)


def test_weights_stored_as_integers_are_told(opt: Path) -> None:
    change_weights(opt, lambda state: {name: weight.to(torch.int8) for name, weight in state.items()})
    assert "as I8" in refused(opt) and "quantised" in refused(opt)


# Files that are broken


@pytest.mark.parametrize(
    "file",
    ["model.safetensors", "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json",
     "processor_config.json"],
)  # fmt: skip
def test_a_git_lfs_pointer_is_told(opt: Path, file: str) -> None:
    (opt / file).write_text(POINTER)
    message = refused(opt)
    assert f"opt/{file} is a git-lfs pointer" in message and "git lfs pull" in message


@pytest.mark.parametrize("file", ["config.json", "generation_config.json", "processor_config.json"])
@pytest.mark.parametrize(
    ("content", "told"),
    [(b"", "is empty"), (b"{", "is not JSON"), (b"[]", "is not a JSON object"), (b"\xff\xfe{\0}\0", "not UTF-8"),
     (b"[" * 100_000, "too deeply")],
)  # fmt: skip
def test_broken_json_is_told_with_its_name(opt: Path, file: str, content: bytes, told: str) -> None:
    (opt / file).write_bytes(content)
    assert f"opt/{file}" in refused(opt) and told in refused(opt)


@pytest.mark.parametrize(("kept", "told"), [(0.5, "cut short or broken"), (0, "is empty")])
def test_weights_that_are_cut_short_are_told(opt: Path, kept: float, told: str) -> None:
    os.truncate(opt / "model.safetensors", int((opt / "model.safetensors").stat().st_size * kept))
    assert f"opt/model.safetensors is {told}" in refused(opt) or told in refused(opt)


def sharded(folder: Path, index: dict[str, str] | None = None) -> None:
    """Put the weights into two shards."""
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(state)
    weight_map = {}
    for number, part in enumerate((names[::2], names[1::2]), 1):
        shard = f"model-{number}-of-2.safetensors"
        save_file({name: state[name] for name in part}, folder / shard, {"format": "pt"})
        weight_map |= dict.fromkeys(part, shard)
    text = json.dumps({"metadata": {}, "weight_map": weight_map | (index or {})})
    (folder / "model.safetensors.index.json").write_text(text)


def test_shards_that_are_missing_or_outside_are_told(opt: Path) -> None:
    sharded(opt)
    assert found(opt).unused == ()
    (opt / "model-2-of-2.safetensors").rename(opt.parent / "model-2-of-2.safetensors")
    assert "is missing 1 of its 2 weight files, such as model-2-of-2" in refused(opt)
    text = (opt / "model.safetensors.index.json").read_text()
    for outside in ("../model-2-of-2.safetensors", f"{opt.parent}/model-2-of-2.safetensors"):
        changed = text.replace("model-2-of-2.safetensors", outside)
        (opt / "model.safetensors.index.json").write_text(changed)
        assert "names a file outside its folder" in refused(opt)
    (opt / "model.safetensors.index.json").write_text("{}")
    assert "index.json has no weight_map" in refused(opt)


def test_a_weight_in_two_shards_is_told(opt: Path) -> None:
    sharded(opt)
    first, second = (opt / f"model-{number}-of-2.safetensors" for number in (1, 2))
    save_file({**load_file(second), "query_tokens": torch.zeros(1, 4, 32)}, second)
    save_file({**load_file(first), "query_tokens": torch.ones(1, 4, 32)}, first)
    assert f"{second} and {first.name} both hold the weight query_tokens | The files are" in refused(opt)


def test_a_configuration_without_a_type_is_told(opt: Path) -> None:
    change_json(opt, "config.json", model_type=None)
    assert "opt/config.json has no model_type; BLIP-2's is blip-2 | " in refused(opt)


def test_links_as_in_the_hubs_cache_are_followed(opt: Path, tmp_path: Path) -> None:
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    for file in sorted(opt.iterdir()):
        file.rename(blobs / file.name)
        file.symlink_to(blobs / file.name)
    assert found(opt).kind == "generation"


def test_other_files_beside_the_weights_are_not_read(opt: Path) -> None:
    save_file({"a": torch.ones(2)}, opt / "optimizer.safetensors")
    assert found(opt).unused == ()
    (opt / "model.safetensors").unlink()
    assert "no weights in model.safetensors" in refused(opt) and "optimizer.safetensors" in refused(opt)


def test_an_adapter_and_a_quantised_checkpoint_are_told(opt: Path, t5: Path) -> None:
    (opt / "adapter_config.json").write_text('{"base_model_name_or_path": "somebody/base"}')
    assert "holds an adapter" in refused(opt) and "merge_and_unload" in refused(opt)
    change_json(t5, "config.json", quantization_config={"load_in_8bit": True})
    assert "quantised" in refused(t5)


ABSURD = {
    "layers": (("text_config",), {"num_hidden_layers": 10**8}),
    "vision layers": (("vision_config",), {"num_hidden_layers": 10**8}),
    "Q-Former layers": (("qformer_config",), {"num_hidden_layers": 10**8}),
    "width": (("text_config",), {"hidden_size": 2**60}),
    "negative": (("vision_config",), {"hidden_size": -32}),
    "no heads": (("vision_config",), {"num_attention_heads": 0}),
    "no patches": (("vision_config",), {"patch_size": 0}),
    "text": (("vision_config",), {"hidden_size": "wide"}),
    "null": (("qformer_config",), {"hidden_size": []}),
    "side": (("vision_config",), {"image_size": 2**40}),
    "two sides": (("vision_config",), {"image_size": [32, 16]}),
    "frequency": (("qformer_config",), {"cross_attention_frequency": 0}),
    "queries": ((), {"num_query_tokens": 10**12}),
    "vocabulary": (("text_config",), {"vocab_size": 10**12}),
    "activation": (("text_config",), {"activation_function": "no such"}),
    "other model": (("text_config",), {"model_type": "nothing"}),
    "another family": (("text_config",), {"model_type": "gpt_neox"}),
}


@pytest.mark.parametrize(("path", "values"), ABSURD.values(), ids=ABSURD)
def test_absurd_configurations_are_told_at_once(opt: Path, path: tuple[str, ...], values: dict[str, Any]) -> None:
    change_json(opt, "config.json", *path, **values)
    started = time.process_time()
    message = refused(opt)
    assert time.process_time() - started < 10, "of a model with a hundred million layers it would be minutes"
    assert "opt" in message and "This should not happen" not in message


def test_ends_that_are_no_tokens_are_told(opt: Path) -> None:
    change_json(opt, "generation_config.json", eos_token_id=["x"])
    assert "generation_config.json: eos_token_id" in refused(opt)


# What `blip2 models` says, and what the command line says


def test_models_says_what_a_run_would(typed: Run, opt: Path) -> None:
    assert typed("models", opt).rows[0]["problem"] is None
    change_weights(opt, lambda state: {**prefixed("module.")(state)})
    ran = typed("models", opt)
    assert ran.code == 1 and "begin with module." in ran.rows[0]["problem"]
    tried = typed("caption", opt, "--model", opt)
    message = tried.err.splitlines()[0].removeprefix("blip2: ")
    assert tried.code == 2 or message in ran.rows[0]["problem"]


def test_models_names_weights_that_are_not_used(typed: Run, opt: Path) -> None:
    change_weights(opt, lambda state: {**state, "itm_head.weight": torch.ones(2, 32)})
    ran = typed("models", opt)
    assert ran.code == 0 and ran.rows[0]["unused"] == ["itm_head.weight"]


def test_the_command_line_says_two_lines(typed: Run, opt: Path, photos: Path) -> None:
    change_weights(opt, without("language_projection"))
    for command in (
        ("caption",),
        ("caption", "--dry-run"),
        ("vqa", "--prompt", "what?"),
        ("embed", "--out", "f.parquet"),
    ):
        ran = typed(*command, photos, "--model", opt)
        assert ran.code == 1 and ran.err.count("\n") == 2 and "language_projection" in ran.err and not ran.out
    assert not Path("f.parquet").exists()


def test_weights_that_are_not_numbers_give_error_rows(opt: Path, typed: Run) -> None:
    change_weights(opt, not_numbers)
    done = typed("caption", IMAGE, "--model", opt, "--dtype", "fp32")
    (row,) = done.rows
    assert done.code == 3 and row["caption"] is None and "not finite" in row["error"]


@pytest.mark.int8
def test_int8_makes_no_numbers_of_weights_that_are_none(opt: Path) -> None:
    change_weights(opt, not_numbers)
    with pytest.raises(CheckpointError, match="language_projection"):
        load_model(found(opt, "int8"))
