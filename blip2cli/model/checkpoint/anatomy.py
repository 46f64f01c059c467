"""What a checkpoint's folder holds, read from its JSON files and the headers of its
weights: nothing is loaded."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blip2cli.errors import CheckpointError
from blip2cli.model.checkpoint.files import has_tokenizer, json_object, weight_files_named
from blip2cli.model.checkpoint.size import WeightCounts, count_weights, headers_in
from blip2cli.model.families import Family, family_of_weights

PARTS = {
    "vision": ("vision_model.",),
    "Q-Former": ("qformer.", "query_tokens", "embeddings."),
    "language model": ("language_model.", "language_projection."),
    "retrieval heads": ("vision_projection.", "text_projection.", "itm_head."),
}
"""Part of the model → beginnings of the names of its weights."""

PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt")


@dataclass(frozen=True)
class Anatomy:
    """What a checkpoint's folder holds.

    Args:
        language_model: such as "OPT, 32 layers of 2560"; None where there is none.
        family: the language model's; None where there is none, or it is not supported.
        image_side: pixels.
        query_tokens: how many there are.
        weights: by what becomes of them when they are loaded.
        parameters: how many there are in each part.
        dtypes: how the weights are stored.
        tokenizer: whether there is one.
        missing: what the checkpoint cannot run without.
        old: what checkpoints of earlier versions lack and this program does not need.
        unused: files that are not read.
    """

    language_model: str | None
    family: Family | None
    image_side: int
    query_tokens: int
    weights: WeightCounts
    parameters: dict[str, int]
    dtypes: tuple[str, ...]
    tokenizer: bool
    missing: tuple[str, ...]
    old: tuple[str, ...]
    unused: tuple[str, ...]


def examine(folder: Path) -> Anatomy:
    """Examine a folder.

    Raises CheckpointError if it is not a BLIP-2 checkpoint, or cannot be read.
    """
    try:
        return _anatomy(folder)
    except (TypeError, ValueError, IndexError, AttributeError):
        raise CheckpointError(
            f"{folder} has a configuration or weights that are not valid", "Copy or fetch it again."
        ) from None


def _anatomy(folder: Path) -> Anatomy:
    config = json_object(folder / "config.json")
    kind = config.get("model_type")
    if kind not in ("blip-2", "blip_2"):
        what = f"is a {kind} checkpoint, not BLIP-2" if kind else "contains no checkpoint (no config.json)"
        if config and not kind:
            what = "has no model_type in its config.json; BLIP-2's is blip-2"
        raise CheckpointError(f"{folder} {what}", "docs/models.md lists the supported checkpoints.")
    named = weight_files_named(folder)
    existing = [path for path in named if path.exists()]
    headers = headers_in(existing)
    shapes = {name: shape for name, (shape, _) in headers.items()}
    processor = json_object(folder / "processor_config.json")
    images = processor.get("image_processor") or json_object(folder / "preprocessor_config.json")
    language_model = _language_model(shapes)
    tokenizer = has_tokenizer(folder)
    return Anatomy(
        language_model=language_model,
        family=family_of_weights(shapes),
        image_side=_image_side(images, config, shapes),
        query_tokens=_query_tokens(config, shapes),
        weights=count_weights(shapes),
        parameters=_parameters(shapes),
        dtypes=tuple(sorted({dtype for _, dtype in headers.values()})),
        tokenizer=tokenizer,
        missing=tuple(_what_is_missing(len(named), len(existing), tokenizer)),
        old=tuple(_what_is_old(folder, config, processor, writes=language_model is not None)),
        unused=tuple(sorted(path.name for pattern in PICKLED for path in folder.glob(pattern))),
    )


def _language_model(shapes: dict[str, tuple[int, ...]]) -> str | None:
    """Kind, layers and width, such as "OPT, 32 layers of 2560"."""
    names = [name for name in shapes if name.startswith("language_model.")]
    if not names:
        return None
    family = family_of_weights(names)
    if family is None:
        return "of an unknown kind"
    prefix = family.layers[-1].prefix
    inside_layers = [name.removeprefix(prefix) for name in names if name.startswith(prefix)]
    layers = {name.partition(".")[0] for name in inside_layers}
    width = f" of {shapes[family.embedding][1]}" if family.embedding in shapes else ""
    return f"{family.architecture}, {len(layers)} layers{width}"


def _query_tokens(config: dict[str, Any], shapes: dict[str, tuple[int, ...]]) -> int:
    if "query_tokens" in shapes:
        return shapes["query_tokens"][1]
    return int(config.get("num_query_tokens", 32))


def _image_side(saved: Any, config: dict[str, Any], shapes: dict[str, tuple[int, ...]]) -> int:
    """From the preprocessor's settings `saved`; else from the weights, else from the
    configuration."""
    size = (saved or {}).get("size")
    side = size.get("height") or size.get("shortest_edge") if isinstance(size, dict) else size
    if side:
        return int(side)
    positions = shapes.get("vision_model.embeddings.position_embedding")
    patch = shapes.get("vision_model.embeddings.patch_embedding.weight")
    if positions and patch:
        return math.isqrt(positions[-2] - 1) * patch[-1]
    return int(config.get("vision_config", {}).get("image_size", 224))


def _parameters(shapes: dict[str, tuple[int, ...]]) -> dict[str, int]:
    """How many parameters each part has; parts without any are left out."""
    counts: dict[str, int] = {}
    for part, prefixes in PARTS.items():
        count = sum(math.prod(shape) for name, shape in shapes.items() if name.startswith(prefixes))
        if count:
            counts[part] = count
    return counts


def _what_is_missing(named: int, existing: int, tokenizer: bool) -> Iterator[str]:
    if not named:
        yield "weights in safetensors"
    if existing < named:
        yield "some of its weights' files"
    if not tokenizer:
        yield "tokenizer"


def _what_is_old(folder: Path, config: dict[str, Any], processor: dict[str, Any], writes: bool) -> Iterator[str]:
    if "num_query_tokens" not in processor:
        yield "num_query_tokens in the processor"
    if config.get("image_token_index") is None:
        yield "image_token_index in the configuration"
    if not any('"<image>"' in _text_of(folder / name) for name in ("tokenizer.json", "added_tokens.json")):
        yield "<image> in the tokenizer"
    if writes and not (folder / "generation_config.json").exists():
        yield "a generation configuration"


def _text_of(path: Path) -> str:
    """A file's text; empty where there is no such file."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
