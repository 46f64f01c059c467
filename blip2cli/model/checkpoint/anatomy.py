"""What a checkpoint's folder holds, read from its JSON files and the headers of its weights: nothing is loaded."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blip2cli.errors import CheckpointError
from blip2cli.model.checkpoint.files import has_tokenizer, json_object, named_weight_files
from blip2cli.model.checkpoint.size import Weights, headers_of, weights_of
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
    """A checkpoint taken apart.

    `parameters` are counted by part; `dtypes` are how the weights are stored. `missing` are what it cannot run without,
    `old` what checkpoints of earlier versions lack and this program does not need, `unused` what is not read.
    """

    language_model: str | None
    family: Family | None
    image_side: int
    query_tokens: int
    weights: Weights
    parameters: dict[str, int]
    dtypes: tuple[str, ...]
    tokenizer: bool
    missing: tuple[str, ...]
    old: tuple[str, ...]
    unused: tuple[str, ...]


def examine(folder: Path) -> Anatomy:
    """Take a folder apart. Raises CheckpointError where it is no BLIP-2, or cannot be read."""
    try:
        return _examined(folder)
    except (TypeError, ValueError, IndexError, AttributeError):
        raise CheckpointError(
            f"{folder} has a configuration or weights that are not valid", "Copy or fetch it again."
        ) from None


def _examined(folder: Path) -> Anatomy:
    config = json_object(folder / "config.json")
    kind = config.get("model_type")
    if kind not in ("blip-2", "blip_2"):
        what = f"is a {kind} checkpoint, not BLIP-2" if kind else "contains no checkpoint (no config.json)"
        raise CheckpointError(f"{folder} {what}", "docs/models.md lists the supported checkpoints.")
    files = named_weight_files(folder)
    there = [path for path in files if path.exists()]
    found = headers_of(there)
    shapes = {name: shape for name, (shape, _) in found.items()}
    processor = json_object(folder / "processor_config.json")
    tokenizer = has_tokenizer(folder)
    return Anatomy(
        _language_model(shapes),
        family_of_weights(shapes),
        _image_side(
            processor.get("image_processor") or json_object(folder / "preprocessor_config.json"), config, shapes
        ),
        shapes["query_tokens"][1] if "query_tokens" in shapes else config.get("num_query_tokens", 32),
        weights_of(shapes),
        {part: count for part in PARTS if (count := _count(shapes, part))},
        tuple(sorted({stored for _, stored in found.values()})),
        tokenizer,
        tuple(_missing(len(files), len(there), tokenizer)),
        tuple(_old(folder, config, processor, writes=_language_model(shapes) is not None)),
        tuple(sorted(path.name for pattern in PICKLED for path in folder.glob(pattern))),
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
    layers = {name[len(prefix) :].partition(".")[0] for name in names if name.startswith(prefix)}
    width = f" of {shapes[family.embedding][1]}" if family.embedding in shapes else ""
    return f"{family.architecture}, {len(layers)} layers{width}"


def _image_side(saved: Any, config: dict[str, Any], shapes: dict[str, tuple[int, ...]]) -> int:
    """From the preprocessor, as in `checkpoint`; else from the weights, else from the configuration."""
    size = (saved or {}).get("size")
    side = size.get("height") or size.get("shortest_edge") if isinstance(size, dict) else size
    if side:
        return int(side)
    positions = shapes.get("vision_model.embeddings.position_embedding")
    patch = shapes.get("vision_model.embeddings.patch_embedding.weight")
    if positions and patch:
        return math.isqrt(positions[-2] - 1) * patch[-1]
    return int(config.get("vision_config", {}).get("image_size", 224))


def _count(shapes: dict[str, tuple[int, ...]], part: str) -> int:
    return sum(math.prod(shape) for name, shape in shapes.items() if name.startswith(PARTS[part]))


def _missing(files: int, there: int, tokenizer: bool) -> list[str]:
    return [
        *([] if files else ["weights in safetensors"]),
        *(["some of its weights' files"] if there < files else []),
        *([] if tokenizer else ["tokenizer"]),
    ]


def _old(folder: Path, config: dict[str, Any], processor: dict[str, Any], writes: bool) -> list[str]:
    tokens = (folder / "tokenizer.json", folder / "added_tokens.json")
    return [
        *([] if "num_query_tokens" in processor else ["num_query_tokens in the processor"]),
        *([] if config.get("image_token_index") is not None else ["image_token_index in the configuration"]),
        *([] if any('"<image>"' in _text(path) for path in tokens) else ["<image> in the tokenizer"]),
        *([] if not writes or (folder / "generation_config.json").exists() else ["a generation configuration"]),
    ]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:  # it is not there
        return ""
