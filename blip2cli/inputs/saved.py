"""Folders written by `save_to_disk` of Hugging Face datasets: which Arrow files they are, in which order."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

from blip2cli.errors import UsageError, reason
from blip2cli.host import storage

SPLITS = "dataset_dict.json"
STATE = "state.json"
INFO = "dataset_info.json"


def saved_files(folder: str) -> list[str]:
    """The files of a saved Dataset, or of all splits of a saved DatasetDict; none where the folder is neither.

    Raises UsageError for one that cannot be read as it is.
    """
    if os.path.isfile(os.path.join(folder, SPLITS)):
        splits = _read(folder, SPLITS, lambda value: [os.path.basename(split) for split in value["splits"]])
        return [file for split in splits for file in _files(os.path.join(folder, split))]
    saved = all(os.path.isfile(os.path.join(folder, name)) for name in (STATE, INFO))
    return _files(folder) if saved else []


def _files(folder: str) -> list[str]:
    def names(state: Any) -> list[str]:
        if state.get("_indices_data_files") or state.get("_indices_files"):
            raise UsageError(
                f"{folder} has a table of indices that changes the order of its rows, which is not supported",
                "Save it again: ds.flatten_indices().save_to_disk(FOLDER).",
            )
        return [os.path.basename(file["filename"]) for file in state["_data_files"]]

    return [os.path.join(folder, name) for name in _read(folder, STATE, names)]


def _read(folder: str, name: str, taken: Callable[[Any], list[str]]) -> list[str]:
    """What is taken from one of the folder's JSON files. Raises UsageError where the file does not have it."""
    path = os.path.join(folder, name)
    try:
        with open(path, encoding="utf-8") as file:
            return taken(json.load(file))
    except OSError as error:
        raise UsageError(
            f"cannot read {path}: {reason(error)}",
            storage.reading_hint(error, "The data set may be incomplete: save it again."),
        ) from None
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
        raise UsageError(f"{path} is not what save_to_disk writes", "Save the data set again.") from None
