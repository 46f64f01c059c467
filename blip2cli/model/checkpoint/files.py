"""A checkpoint's files: which of them are its weights, and reading its JSON. Errors name
the file.

Nothing heavy is imported, and nothing outside the checkpoint's folder is read. Symbolic
links are followed: the hub's cache is made of them.
"""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from blip2cli.errors import CheckpointError, reason
from blip2cli.host.storage import LFS_POINTER, LFS_PULL

WEIGHTS = "model.safetensors"

INDEX = "model.safetensors.index.json"
"""Names the shards of weights that are too large for one file, as transformers does."""

ADAPTER = ("adapter_config.json", "adapter_model.safetensors")
"""The files of an adapter (PEFT): changes to another model's weights."""

TOKENIZER_FILES = (
    ("tokenizer.json",),
    ("vocab.json", "merges.txt"),
    ("spiece.model",),
    ("tokenizer.model",),
    ("vocab.txt",),
)
"""Sets of files; any one of them holds a tokenizer's vocabulary."""

TOKENIZER_CONFIG = "tokenizer_config.json"
"""Says which tokenizer the vocabulary is for; without it, a tokenizer that splits texts
differently would be loaded."""

COPY_AGAIN = "Copy or fetch it again."


def weight_files(folder: Path) -> list[Path]:
    """The files that hold the weights, as transformers looks for them; empty where there
    are none.

    Raises CheckpointError for an index that is broken, or that names files which are
    missing or outside the folder.
    """
    named = weight_files_named(folder)
    missing = [path for path in named if not path.exists()]
    if missing:
        raise CheckpointError(
            f"{folder} is missing {len(missing)} of its {len(named)} weight files, such as {missing[0].name}",
            "The download is not complete: copy or fetch them again.",
        )
    return named


def weight_files_named(folder: Path) -> list[Path]:
    """The files that should hold the weights, whether they exist or not."""
    single, index = folder / WEIGHTS, folder / INDEX
    if single.exists():
        return [single]
    return [folder / name for name in shard_names(index)] if index.exists() else []


def shard_names(index: Path) -> list[str]:
    """The files that an index names.

    Raises CheckpointError for a broken index, or names outside its folder.
    """
    weight_map = json_object(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{index} has no weight_map", COPY_AGAIN)
    names = sorted({str(name) for name in weight_map.values()})
    for name in names:
        parts = {*PurePosixPath(name).parts, *PureWindowsPath(name).parts}
        if ".." in parts or PurePosixPath(name).is_absolute() or PureWindowsPath(name).drive:
            raise CheckpointError(f"{index} names a file outside its folder: {name}", "Do not use this checkpoint.")
    return names


def has_tokenizer(folder: Path) -> bool:
    """Whether a folder has the files of a tokenizer."""
    return not missing_of_tokenizer(folder)


def missing_of_tokenizer(folder: Path) -> list[str]:
    """The names of files that a tokenizer needs and the folder does not have."""

    def missing(names: tuple[str, ...]) -> list[str]:
        return [name for name in names if not (folder / name).exists()]

    def distance(names: tuple[str, ...]) -> tuple[bool, int]:
        """How far a set is from complete; sets without any existing file are furthest."""
        return len(missing(names)) == len(names), len(missing(names))

    closest = min(TOKENIZER_FILES, key=distance)
    return missing((*closest, TOKENIZER_CONFIG))


def json_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty where there is no such file.

    Raises CheckpointError, naming the file.
    """
    if not path.exists():
        return {}
    check_file(path)
    try:
        loaded = json.loads(path.read_text(encoding="utf-8"))
    except RecursionError:
        raise CheckpointError(f"{path} is nested too deeply", COPY_AGAIN) from None
    except UnicodeDecodeError:
        raise CheckpointError(f"{path} is not UTF-8 text", COPY_AGAIN) from None
    except (ValueError, OSError) as error:
        raise CheckpointError(f"{path} is not JSON: {error}", COPY_AGAIN) from None
    if not isinstance(loaded, dict):
        raise CheckpointError(f"{path} is not a JSON object, but {type(loaded).__name__}", COPY_AGAIN)
    return loaded


def check_file(path: Path) -> None:
    """Raise CheckpointError for a file that is empty, cannot be read, or is only
    git-lfs's pointer to it."""
    if not path.is_file():
        raise CheckpointError(f"{path} is not a regular file", COPY_AGAIN)
    try:
        with path.open("rb") as file:
            start = file.read(len(LFS_POINTER))
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {reason(error)}", "Check its permissions.") from None
    if start == LFS_POINTER:
        raise CheckpointError(f"{path} is a git-lfs pointer, not the file itself", LFS_PULL)
    if not start:
        raise CheckpointError(f"{path} is empty", COPY_AGAIN)
