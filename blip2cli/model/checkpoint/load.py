"""Loads the weights of a checkpoint that was found.

Weights come from safetensors only and no remote code is run. What checkpoints saved
before transformers 4.46 lack (`num_query_tokens` in the processor, `image_token_index`,
the `<image>` token) is never read here.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import torch

from blip2cli.host.terminal import weights_counted
from blip2cli.model.checkpoint import packing, placement, quantize
from blip2cli.model.checkpoint.explained import explained
from blip2cli.model.checkpoint.record import CLASSES, QUANTIZED, Checkpoint
from blip2cli.model.checkpoint.weights import SAVE_WHOLE, check_report, report_of_loading

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def load_weights(checkpoint: Checkpoint) -> PreTrainedModel:
    """The model in its dtype on its device or devices, ready to run.

    Raises CheckpointError.
    """
    parts: placement.Placement = {}
    if checkpoint.others:
        parts = placement.device_map(checkpoint.config, placement.place_layers(checkpoint), checkpoint.device)
    model = _loaded(checkpoint, parts)
    if parts:
        placement.move_inputs_of_parts(model, parts)
    if all(device.type == "cpu" for device in checkpoint.devices):
        _prepare_for_cpu(checkpoint, model)
    ready: PreTrainedModel = model.eval()
    return ready


def _loaded(checkpoint: Checkpoint, parts: placement.Placement) -> Any:
    """The model as transformers loads it, with its `parts` on these devices.

    Raises CheckpointError.
    """
    import transformers

    architecture = getattr(transformers, CLASSES[checkpoint.kind])
    options = _loading_options(checkpoint, parts)
    with explained(f"cannot load {checkpoint.name}", SAVE_WHOLE), weights_counted(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The following device_map keys")  # query_tokens are not a module
        model, info = architecture.from_pretrained(
            checkpoint.folder, use_safetensors=True, output_loading_info=True, **options
        )
    if "quantization_config" not in options:  # bitsandbytes adds weights of its own
        check_report(checkpoint.name, report_of_loading(info, model))
    return model


def _loading_options(checkpoint: Checkpoint, parts: placement.Placement) -> dict[str, Any]:
    """Arguments of from_pretrained."""
    options: dict[str, Any] = {"dtype": checkpoint.dtype}
    if parts:
        options["device_map"] = parts
    elif checkpoint.device.type != "cpu":
        options["device_map"] = {"": checkpoint.device}
    if checkpoint.precision in QUANTIZED and checkpoint.device.type == "cpu":
        options["dtype"] = "auto"  # as saved: the layers are quantised from the mapped file, one by one
    elif checkpoint.precision in QUANTIZED:
        options["quantization_config"] = quantize.bitsandbytes_config(checkpoint.precision, checkpoint.dtype)
    return options


def _prepare_for_cpu(checkpoint: Checkpoint, model: Any) -> None:
    """Replace layers by those that are fast on this processor, in place."""
    if checkpoint.precision in QUANTIZED:
        quantize.quantize_linears(model, checkpoint.dtype)
    elif checkpoint.precision in ("fp32", "bf16") and packing.is_available(checkpoint.dtype):
        packing.pack_linears(model)
    if checkpoint.dtype == torch.bfloat16:
        model.vision_model.set_attn_implementation("eager")  # half the time of the fused one, for so few patches
