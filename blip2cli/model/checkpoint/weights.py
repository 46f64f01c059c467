"""Whether a checkpoint's weights are those of its model: by name, shape and dtype, from
the headers of their files.

Nothing is loaded. The model is made without memory (on PyTorch's meta device), and
transformers reports what it would do with the weights: the model's declarations say which
may be missing (tied weights, buffers) or left over.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from blip2cli.errors import CheckpointError
from blip2cli.model.checkpoint.explained import explained
from blip2cli.model.checkpoint.files import json_object
from blip2cli.model.checkpoint.size import Shape, weight_headers

FLOATING = {"F64", "F32", "F16", "BF16"}
"""Dtypes in which weights may be stored, as safetensors names them."""

LAYER_COUNTS = ("num_hidden_layers", "num_layers", "num_decoder_layers")
"""Fields of configurations that hold numbers of layers."""

MOST_NAMED = 3
"""The most weights that an error names."""

SAVE_WHOLE = "Save it again with the model's save_pretrained, which writes all of it, or fetch it again."

MERGE = "Merge the adapter first: PEFT's merge_and_unload(), then save_pretrained."

UNWRAP = "Save the model itself, not its wrapper (PEFT, DataParallel, torch.compile, a trainer's class)."

CONVERT = "Convert it first, with transformers' convert_blip_2_original_to_pytorch.py."

SAME_MODEL = "config.json and the weights are of different models: copy both from the same one."

NEVER_USED = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
"""A weight of T5 that old checkpoints have and no version uses: older transformers report
it as unexpected."""

LAVIS_PREFIXES = ("Qformer.", "visual_encoder.", "opt_model.", "t5_model.", "opt_proj.", "t5_proj.")
"""Prefixes of weights in LAVIS's own checkpoints, which have to be converted for
transformers."""


@dataclass(frozen=True)
class WeightReport:
    """How a checkpoint's weights differ from its model's.

    Args:
        expected: how many weights the model has.
        missing: the model's weights that would be random.
        unexpected: the checkpoint's weights that the model does not have.
        mismatched: weights whose shapes differ: name, shape in the checkpoint, shape in
            the model.
        parts: names of the model's parts.
    """

    expected: int
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: tuple[tuple[str, Shape, Shape], ...]
    parts: frozenset[str]

    @property
    def inside(self) -> tuple[str, ...]:
        """Unexpected weights in a part of the model, which would therefore compute
        something else."""
        return tuple(name for name in self.unexpected if name.partition(".")[0] in self.parts)

    @property
    def unused(self) -> tuple[str, ...]:
        """Unexpected weights outside the model's parts, such as heads for another use."""
        return tuple(name for name in self.unexpected if name.partition(".")[0] not in self.parts)


def check_weights(name: str, folder: Path, config: Any, architecture: str) -> WeightReport:
    """Compare a folder's weights with those of its model.

    Args:
        name: the checkpoint's, for messages.
        folder: where its files are.
        config: transformers' configuration.
        architecture: the model's class in transformers.

    Raises CheckpointError if they do not fit.
    """
    stored = weight_headers(folder)
    with explained(f"{folder / 'config.json'} is not valid", SAME_MODEL):
        _check_layers(name, config, architecture, len(stored))
        model = _empty_model(config, architecture)
    wanted = model.state_dict()
    shapes = {}
    for weight, (shape, dtype) in stored.items():
        if weight in wanted or dtype in FLOATING:  # an unknown integer is a buffer of an earlier version
            shapes[weight] = shape
    report = _report_of_equal_names(model, shapes) or _report_by_transformers(config, architecture, shapes, model)
    head = _own_head(folder, model)
    if head is not None and head not in shapes:
        report = replace(report, missing=(*report.missing, head))
    check_report(name, report)
    for weight, (_, dtype) in stored.items():
        if weight in wanted and dtype not in FLOATING:
            raise CheckpointError(
                f"{name} stores {weight} as {dtype}; weights are {', '.join(sorted(FLOATING))}",
                "Use the checkpoint that it was quantised from, with --dtype int8 or int4.",
            )
    return report


def check_report(name: str, report: WeightReport) -> None:
    """Raise CheckpointError if the model would not be the one that was saved, and say
    what is likely wrong."""
    misshapen = [weight for weight, _, _ in report.mismatched]
    if report.missing:
        fault = _fault("is missing", report.missing, f"of the {report.expected} weights of its model")
    elif misshapen:
        fault = _fault("has", misshapen, "weights whose shape differs from its config.json")
    elif report.inside:
        fault = _fault("has", report.inside, "weights that its model does not have")
    else:
        return
    cause, hint = _cause_and_hint(report)
    raise CheckpointError(f"{name} {fault}: {cause}", hint)


def report_of_loading(info: dict[str, Any], model: Any) -> WeightReport:
    """The report of a model that was loaded, from transformers' `output_loading_info`."""
    tied = _tied(model)
    unexpected = [name for name in info["unexpected_keys"] if not name.endswith(NEVER_USED)]
    mismatched = [(name, tuple(stored), tuple(wanted)) for name, stored, wanted in info["mismatched_keys"]]
    return WeightReport(
        expected=len(model.state_dict().keys() - tied.keys()),
        missing=tuple(sorted({*info["missing_keys"]} - tied.keys())),
        unexpected=tuple(sorted(unexpected)),
        mismatched=tuple(sorted(mismatched)),
        parts=_parts(model),
    )


def _empty_model(config: Any, architecture: str) -> Any:
    import transformers

    with torch.device("meta"):
        return getattr(transformers, architecture)(config)


def _own_head(folder: Path, model: Any) -> str | None:
    """The name of the language model's head, if config.json says that it is not tied to
    the embeddings.

    If T5's head is missing, transformers ties it, whatever the configuration says
    (Flan-T5's is not tied).
    """
    text = json_object(folder / "config.json").get("text_config")
    tied = text.get("tie_word_embeddings") if isinstance(text, dict) else None
    if tied is not False or not hasattr(model, "language_model"):
        return None
    head = model.language_model.get_output_embeddings()
    return next((f"{name}.weight" for name, module in model.named_modules() if module is head), None)


def _report_of_equal_names(model: Any, shapes: dict[str, Shape]) -> WeightReport | None:
    """The report if names and shapes are exactly the model's; else None.

    Ten times as fast as transformers' own.
    """
    wanted = {name: tuple(weight.shape) for name, weight in model.state_dict().items()}
    tied = _tied(model)
    if any(wanted.get(name) != shape for name, shape in shapes.items()):
        return None
    if any(tied.get(name) not in shapes for name in wanted.keys() - shapes.keys()):
        return None
    return WeightReport(len(wanted.keys() - tied.keys()), (), (), (), _parts(model))


def _report_by_transformers(config: Any, architecture: str, shapes: dict[str, Shape], model: Any) -> WeightReport:
    """The report of transformers' own loading; neither the weights nor the model take
    memory."""
    import transformers
    from transformers.utils import logging

    weights = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    verbosity, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()  # it would print the report
    logging.disable_progress_bar()
    _, info = getattr(transformers, architecture).from_pretrained(
        None,
        config=config,
        state_dict=weights,
        device_map={"": "meta"},
        output_loading_info=True,
        ignore_mismatched_sizes=True,
    )
    logging.set_verbosity(verbosity)
    if bar:
        logging.enable_progress_bar()
    return report_of_loading(info, model)


def _tied(model: Any) -> dict[str, str]:
    """Weights that a checkpoint may leave out → the ones that they are equal to."""
    tied: dict[str, str] = getattr(model, "all_tied_weights_keys", {})
    return tied


def _parts(model: Any) -> frozenset[str]:
    parameters = (name for name, _ in model.named_parameters(recurse=False))
    return frozenset([*parameters, *(name for name, _ in model.named_children())])


def _check_layers(name: str, config: Any, architecture: str, weights: int) -> None:
    """Raise CheckpointError for more layers than there are weights, before a model with
    so many is made."""
    parts = [config.vision_config, config.qformer_config]
    if architecture == "Blip2ForConditionalGeneration":
        parts.append(config.text_config)
    for part in parts:
        for field in LAYER_COUNTS:
            layers = getattr(part, field, 0) or 0
            if layers > weights:
                raise CheckpointError(
                    f"{name} has {weights} weights, and {field} in its config.json is {layers}", SAME_MODEL
                )


def _fault(verb: str, names: Sequence[str], of_what: str) -> str:
    """The part of a message that says how many weights are wrong, and names a few."""
    shown = ", ".join(_examples(names))
    such_as = f"such as {shown}" if len(names) > MOST_NAMED else shown
    return f"{verb} {len(names)} {of_what}, {such_as}"


def _examples(names: Sequence[str]) -> list[str]:
    """A few of the names, from different parts of the model if possible."""
    first_of_part: dict[str, str] = {}
    for name in names:
        first_of_part.setdefault(name.partition(".")[0], name)
    return list(dict.fromkeys([*first_of_part.values(), *names]))[:MOST_NAMED]


def _cause_and_hint(report: WeightReport) -> tuple[str, str]:
    """The likely cause, and what to do."""
    extra = report.unexpected
    if any(".base_layer." in name or "lora_" in name or ".modules_to_save." in name for name in extra):
        return "an adapter (LoRA) is not merged into its weights", MERGE
    prefix = _common_prefix(report)
    if prefix:
        return f"the names of its weights begin with {prefix}", UNWRAP
    if any(name.startswith(LAVIS_PREFIXES) for name in extra):
        return "its weights are named as LAVIS names them", CONVERT
    if not report.missing and report.mismatched:
        name, stored, wanted = report.mismatched[0]
        return f"{name} is {list(stored)} and should be {list(wanted)}", SAME_MODEL
    if not report.missing:
        return "its config.json describes a smaller model, or another one", SAME_MODEL
    parts = sorted({name.partition(".")[0] for name in report.missing})
    return f"{' and '.join(parts[:MOST_NAMED])} would be random", SAVE_WHOLE


def _common_prefix(report: WeightReport) -> str | None:
    """The prefix under which the checkpoint has most of the missing weights, if there is
    one."""
    extra = set(report.unexpected)
    for missing in report.missing[:MOST_NAMED]:
        for name in extra:
            if name.endswith(f".{missing}"):
                prefix = name.removesuffix(missing)
                with_prefix = sum(prefix + other in extra for other in report.missing)
                if with_prefix * 2 > len(report.missing):
                    return prefix
    return None
