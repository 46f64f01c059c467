"""Whether a checkpoint's weights are those of its model: by name, shape and dtype, from the headers of their files.

Nothing is loaded. What may be absent (tied weights, buffers) or left over is known by the declarations of transformers'
model, which is made without memory (on PyTorch's meta device); transformers reports what it would do with the weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from blip2cli.errors import CheckpointError
from blip2cli.model.checkpoint.explained import explained
from blip2cli.model.checkpoint.files import json_object
from blip2cli.model.checkpoint.size import headers

Shape = tuple[int, ...]

FLOATING = {"F64", "F32", "F16", "BF16"}
"""How weights may be stored, in safetensors' words."""

LAYERS = ("num_hidden_layers", "num_layers", "num_decoder_layers")
"""Names of the numbers of layers in configurations."""

NAMED = 3
"""As many weights are named in an error."""

SAVE_WHOLE = "Save it again with the model's save_pretrained, which writes all of it, or fetch it again."

MERGE = "Merge the adapter first: PEFT's merge_and_unload(), then save_pretrained."

UNWRAP = "Save the model itself, not its wrapper (PEFT, DataParallel, torch.compile, a trainer's class)."

CONVERT = "Convert it first, with transformers' convert_blip_2_original_to_pytorch.py."

SAME_MODEL = "config.json and the weights are of different models: copy both from the same one."

LEFT_OVER = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
"""A weight of T5 that was saved once and never used: older transformers report it as unexpected."""

LAVIS = ("Qformer.", "visual_encoder.", "opt_model.", "t5_model.", "opt_proj.", "t5_proj.")
"""Beginnings of the names of weights in checkpoints of LAVIS, from which transformers' are converted."""


@dataclass(frozen=True)
class Report:
    """What transformers would make of the weights.

    Args:
        expected: how many weights the model has.
        missing: the model's weights that would be random.
        unexpected: the checkpoint's weights that no part of the model is made for.
        mismatched: weights of another shape than the model's, with both shapes: the checkpoint's, the model's.
        parts: names of the model's parts.
    """

    expected: int
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: tuple[tuple[str, Shape, Shape], ...]
    parts: frozenset[str]

    @property
    def inside(self) -> tuple[str, ...]:
        """Unexpected weights that lie in a part of the model, which would therefore compute something else."""
        return tuple(name for name in self.unexpected if name.partition(".")[0] in self.parts)

    @property
    def unused(self) -> tuple[str, ...]:
        """Unexpected weights that belong to no part of the model, such as heads for another use."""
        return tuple(name for name in self.unexpected if name.partition(".")[0] not in self.parts)


def check_weights(name: str, folder: Path, config: Any, architecture: str) -> Report:
    """Compare a folder's weights with its model's, a class of transformers. Raises CheckpointError."""
    stored = headers(folder)
    with explained(f"{folder / 'config.json'} is not valid", SAME_MODEL):
        _check_layers(name, config, architecture, len(stored))
        model = _empty_model(config, architecture)
    wanted = model.state_dict()
    shapes = {  # an integer that the model does not have is no weight, but a buffer of an earlier version
        weight: shape for weight, (shape, dtype) in stored.items() if weight in wanted or dtype in FLOATING
    }
    report = _compared(model, shapes) or _reported(config, architecture, shapes, model)
    head = _own_head(folder, model)
    if head is not None and head not in shapes:
        report = replace(report, missing=(*report.missing, head))
    judge(name, report)
    for weight, (_, dtype) in stored.items():
        if weight in wanted and dtype not in FLOATING:
            raise CheckpointError(
                f"{name} stores {weight} as {dtype}; weights are {', '.join(sorted(FLOATING))}",
                "Use the checkpoint that it was quantised from, with --dtype int8 or int4.",
            )
    return report


def judge(name: str, report: Report) -> None:
    """Raise CheckpointError where the model would not be the one that was saved, and say what is likely wrong."""
    faults = [
        *_told("is missing", report.missing, f"of the {report.expected} weights of its model"),
        *_told(
            "has", [weight for weight, _, _ in report.mismatched], "weights whose shape differs from its config.json"
        ),
        *_told("has", report.inside, "weights that its model does not have"),
    ]
    if faults:
        cause, hint = _cause(report)
        raise CheckpointError(f"{name} {faults[0]}: {cause}", hint)


def loaded_report(info: dict[str, Any], model: Any) -> Report:
    """The report of a model that has been loaded, from what transformers' `output_loading_info` gives."""
    tied: dict[str, str] = getattr(model, "all_tied_weights_keys", {})  # they follow from others
    return Report(
        expected=len(model.state_dict().keys() - tied.keys()),
        missing=tuple(sorted({*info["missing_keys"]} - tied.keys())),
        unexpected=tuple(sorted(name for name in info["unexpected_keys"] if not name.endswith(LEFT_OVER))),
        mismatched=tuple(
            sorted((name, tuple(found), tuple(wanted)) for name, found, wanted in info["mismatched_keys"])
        ),
        parts=_parts(model),
    )


def _empty_model(config: Any, architecture: str) -> Any:
    import transformers

    with torch.device("meta"):
        return getattr(transformers, architecture)(config)


def _own_head(folder: Path, model: Any) -> str | None:
    """The name of the language model's head where config.json says that it is not tied to the embeddings.

    transformers ties that of T5 where it is missing, whatever the configuration says (Flan-T5's is not tied).
    """
    text = json_object(folder / "config.json").get("text_config")
    tied = text.get("tie_word_embeddings") if isinstance(text, dict) else None
    if tied is not False or not hasattr(model, "language_model"):
        return None
    head = model.language_model.get_output_embeddings()
    return next((f"{name}.weight" for name, module in model.named_modules() if module is head), None)


def _compared(model: Any, shapes: dict[str, Shape]) -> Report | None:
    """The report where names and shapes are just the model's; else None. Ten times as fast as transformers' own."""
    wanted = {name: tuple(weight.shape) for name, weight in model.state_dict().items()}
    tied: dict[str, str] = getattr(model, "all_tied_weights_keys", {})
    absent = wanted.keys() - shapes.keys()
    same = all(wanted.get(name) == shape for name, shape in shapes.items())
    if not same or any(tied.get(name) not in shapes for name in absent):
        return None
    return Report(len(wanted.keys() - tied.keys()), (), (), (), _parts(model))


def _reported(config: Any, architecture: str, shapes: dict[str, Shape], model: Any) -> Report:
    """The report of transformers' own loading, of weights without memory into a model without memory."""
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
    return loaded_report(info, model)


def _parts(model: Any) -> frozenset[str]:
    parameters = (name for name, _ in model.named_parameters(recurse=False))
    return frozenset([*parameters, *(name for name, _ in model.named_children())])


def _check_layers(name: str, config: Any, architecture: str, weights: int) -> None:
    """Refuse more layers than there are weights before a model of so many is made."""
    writes = [config.text_config] if architecture == "Blip2ForConditionalGeneration" else []
    for part in (config.vision_config, config.qformer_config, *writes):
        for field in LAYERS:
            layers = getattr(part, field, 0) or 0
            if layers > weights:
                raise CheckpointError(
                    f"{name} has {weights} weights, and {field} in its config.json is {layers}", SAME_MODEL
                )


def _told(verb: str, names: Iterable[str], of_what: str) -> Iterator[str]:
    """That some weights are at fault, naming a few; nothing where none are."""
    found = list(names)
    if found:
        shown = ", ".join(_spread(found))
        such_as = f" such as {shown}" if len(found) > NAMED else f" {shown}"
        yield f"{verb} {len(found)} {of_what},{such_as}"


def _spread(names: list[str]) -> list[str]:
    """A few of the names, from different parts of the model as far as there are."""
    first_of_part = list({name.partition(".")[0]: name for name in reversed(names)}.values())[::-1]
    return list(dict.fromkeys([*first_of_part, *names]))[:NAMED]


def _cause(report: Report) -> tuple[str, str]:
    """What is likely wrong, and what to do."""
    extra = report.unexpected
    if any(".base_layer." in name or "lora_" in name or ".modules_to_save." in name for name in extra):
        return "an adapter (LoRA) is not merged into its weights", MERGE
    prefix = _prefix(report)
    if prefix:
        return f"the names of its weights begin with {prefix}", UNWRAP
    if any(name.startswith(LAVIS) for name in extra):
        return "its weights are named as LAVIS names them", CONVERT
    if not report.missing and report.mismatched:
        name, found, wanted = report.mismatched[0]
        return f"{name} is {list(found)} and should be {list(wanted)}", SAME_MODEL
    if not report.missing:
        return "its config.json describes a smaller model, or another one", SAME_MODEL
    absent = _whole_parts(report)
    if absent:
        return f"{' and '.join(absent)} would be random", SAVE_WHOLE
    return "they would be random", SAVE_WHOLE


def _prefix(report: Report) -> str | None:
    """What stands before the names of most missing weights in the checkpoint, if anything does."""
    extra = set(report.unexpected)
    for missing in report.missing[:NAMED]:
        for name in extra:
            if name.endswith(f".{missing}"):
                prefix = name[: -len(missing)]
                found = sum(prefix + other in extra for other in report.missing)
                if found * 2 > len(report.missing):
                    return prefix
    return None


def _whole_parts(report: Report) -> list[str]:
    """Parts of the model all of whose weights might be missing, by the names of those that are."""
    return sorted({name.partition(".")[0] for name in report.missing})[:NAMED]
