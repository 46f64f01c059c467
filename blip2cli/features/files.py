"""Feature files, as `blip2 embed --features itc` writes them: read a block at a time, never as a whole."""

from __future__ import annotations

import shlex
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from blip2cli.errors import UsageError, reason
from blip2cli.host import storage
from blip2cli.settings.metadata import settings_of

if TYPE_CHECKING:
    import pyarrow as pa

    from blip2cli.settings import ModelSettings

BLOCK = 32 << 20
"""Bytes of vectors, in fp32, that are in memory at once."""

HINT = "Compute features first: blip2 embed ./photos --features itc --out feats.parquet"

ITC = ("itc",)
"""The kind of features that can be compared with texts."""

OWN_COLUMNS = ("image", "error")
"""Columns that every file of features has, in addition to the features: the row's name, and why it has none."""

OF_IMAGES = ("itc", "qformer", "vision")
"""Kinds of features of images."""

SUFFIXES = (".parquet", ".arrow", ".feather", ".npy")
"""Those of feature files."""


class Part(Protocol):
    """One file: some of the rows. Vectors are [rows, tokens, width] as stored; rows without any are not `there`."""

    files: tuple[Path, ...]
    rows: int
    schema: pa.Schema
    shape: tuple[int, ...]

    def blocks(self, size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Vectors, and whether each row has some [rows], of at most `size` rows one after the other."""

    def vectors(self, rows: Sequence[int]) -> np.ndarray:
        """The vectors of rows that are there."""

    def records(self, rows: Sequence[int]) -> list[dict[str, Any]]:
        """The other columns of rows."""


@dataclass(frozen=True)
class Features:
    """Features of images in one or several files. Rows are counted from 0 throughout."""

    path: Path
    parts: tuple[Part, ...]
    settings: Mapping[str, Any]

    @property
    def rows(self) -> int:
        return self._ends[-1]

    @property
    def shape(self) -> tuple[int, int]:
        """Query tokens and width; features that are pooled have one token."""
        *tokens, width = self.parts[0].shape
        return tokens[0] if tokens else 1, width

    @property
    def schema(self) -> pa.Schema:
        """Names and types of the other columns."""
        return self.parts[0].schema

    @property
    def carried(self) -> pa.Schema:
        """Names and types of the columns that an output of these rows carries along."""
        import pyarrow as pa

        return pa.schema([field for field in self.schema if field.name not in OWN_COLUMNS])

    def blocks(self) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """The number of a block's first row, its vectors fp32 [rows, tokens, width], and which rows have any [rows]."""
        first = 0
        for part in self.parts:
            for vectors, present in part.blocks(max(1, BLOCK // (4 * self.shape[0] * self.shape[1]))):
                yield first, self._as_floats(vectors), present
                first += len(vectors)

    def vectors(self, rows: Sequence[int]) -> np.ndarray:
        """The vectors of rows, fp32 [rows, tokens, width]."""
        taken = self._read_rows(rows, lambda part, rows_of_part: list(part.vectors(rows_of_part)))
        return self._as_floats(np.stack([taken[row] for row in rows]))

    def _as_floats(self, vectors: np.ndarray) -> np.ndarray:
        """Vectors as fp32 [rows, tokens, width]; numbers that it cannot hold are infinite."""
        with np.errstate(over="ignore"):
            return vectors.reshape(-1, *self.shape).astype(np.float32, copy=False)

    def records(self, rows: Sequence[int]) -> list[dict[str, Any]]:
        """The other columns of rows. A row of a file that has no name for its image is named by its number."""
        taken = self._read_rows(rows, lambda part, rows_of_part: part.records(rows_of_part))
        for row, record in taken.items():
            if record["image"] is None and self.parts[0].files:
                record["image"] = f"{self.path}#{row}"
        return [taken[row] for row in rows]

    def model_settings(self, asked: ModelSettings, command: str) -> ModelSettings:
        """The settings of the model that made the features: see `settings_of_maker`."""
        return settings_of_maker(str(self.path), self.settings, asked, command)

    @cached_property
    def _ends(self) -> list[int]:
        """The number behind each part's last row."""
        return list(accumulate(part.rows for part in self.parts))

    def _read_rows(self, rows: Sequence[int], take: Callable[[Part, list[int]], list[Any]]) -> dict[int, Any]:
        """The result of `take` for each of the rows; each part is asked once, in its order."""
        by_row: dict[int, Any] = {}
        rows_by_part: dict[int, list[int]] = {}
        for row in sorted(set(rows)):
            rows_by_part.setdefault(bisect_right(self._ends, row), []).append(row)
        for number, rows_of_part in rows_by_part.items():
            first = self._ends[number] - self.parts[number].rows
            taken = take(self.parts[number], [row - first for row in rows_of_part])
            by_row.update(zip(rows_of_part, taken, strict=True))
        return by_row


def open_features(path: Path, kinds: Sequence[str] = ITC) -> Features:
    """Open features that `embed` wrote: a Parquet or Arrow file, a folder of them, or arrays with their metadata.

    Raises UsageError for anything else, for other features than those of images of these kinds, and for parts that
    differ.
    """
    import pyarrow as pa

    try:
        parts = tuple(_parts(path))
    except (OSError, EOFError, ValueError, KeyError, pa.ArrowException) as error:
        raise UsageError(f"cannot read {path}: {reason(error)}", storage.reading_hint(error, HINT)) from None
    settings = [settings_of(part.schema.metadata) for part in parts]
    for part, said in zip(parts, settings, strict=True):
        kind = said.get("features")
        if kind not in kinds:
            raise UsageError(f"{path} holds {f'{kind} features' if kind else 'no known features'}", _again(path, said))
        if len(set(part.schema.names)) < len(part.schema.names):
            raise UsageError(f"{path} has several columns of one name", "Rename them; one would hide the other.")
        if not set(OWN_COLUMNS) <= set(part.schema.names) or not _is_text(part.schema.field("image").type):
            raise UsageError(f"{path} has no columns image and error", HINT)
        if kind == "itc" and len(part.shape) != 2:
            raise UsageError(f"{path} holds features of texts", "Give features of images.")
        if 0 in part.shape:
            raise UsageError(f"{path} holds features without numbers", HINT)
        if _made_by(said) != _made_by(settings[0]) or part.shape != parts[0].shape:
            raise UsageError(f"{path} holds features of several models", "Give them one by one.")
        if part.schema.names != parts[0].schema.names:
            raise UsageError(f"{path} holds files with different columns", "Give them one by one.")
    return Features(path, parts, settings[0])


def settings_of_maker(path: str, said: Mapping[str, Any], asked: ModelSettings, command: str) -> ModelSettings:
    """The settings of the model that made the features of a file, which alone can make queries for them.

    Raises UsageError where another model is asked for.

    Args:
        path: the file.
        said: what `embed` has noted in it.
        asked: the settings that were asked for.
        command: what was typed, without its options.
    """
    from blip2cli.settings import absolute

    model, revision = _made_by(said)
    if asked.model is None and isinstance(model, str) and model:
        return replace(asked, model=model, revision=asked.revision or revision)
    if model != absolute(asked.model or ""):
        raise UsageError(
            f"{path} was made by {model}, not by {absolute(asked.model or '')}",
            f"Type: {command} --model {shlex.quote(str(model))}",
        )
    if revision != asked.revision:
        raise UsageError(
            f"{path} was made by {_revision(revision)}, not by {_revision(asked.revision)}",
            f"Type: {command}{f' --revision {shlex.quote(str(revision))}' if revision else ''}",
        )
    return asked


def _revision(name: Any) -> str:
    """A revision in words."""
    return f"revision {name}" if name else "its default revision"


def holds_features(path: Path) -> bool:
    """Whether a file, or the first file of a folder, has features: a column of tensors, or an array."""
    import pyarrow as pa

    if path.suffix not in SUFFIXES and not path.is_dir():
        return False
    try:
        next(_parts(path))
    except (OSError, EOFError, ValueError, KeyError, pa.ArrowException, UsageError):
        return path.suffix == ".npy"  # which is nothing else
    return True


def _again(path: Path, said: Mapping[str, Any]) -> str:
    """What to type for features that can be searched, where a file has others."""
    out = shlex.quote(str(path.with_name(f"{path.stem}-itc{path.suffix}")))
    tiny = " --model tiny" if said.get("model") == "tiny" else ""  # other checkpoints are of one kind only
    return f"Type: blip2 embed ./photos --features itc{tiny} --out {out}"


def _is_text(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _made_by(settings: Mapping[str, Any]) -> tuple[Any, Any]:
    """The model, and its revision."""
    return settings.get("model"), settings.get("revision")


def _parts(path: Path) -> Iterator[Part]:
    from blip2cli.features.arrays import ArrayPart
    from blip2cli.features.tables import ArrowPart, ParquetPart

    if not path.exists():
        raise UsageError(f"no such file: {path}", HINT)
    arrays = sorted((path / "img_emb").glob("img_emb_*.npy"))
    tables = sorted(file for suffix in ("parquet", "arrow", "feather") for file in path.glob(f"*.{suffix}"))
    files = [path] if path.is_file() else arrays or tables
    if not files:
        raise UsageError(f"{path} holds no feature files", HINT)
    kinds: dict[str, Any] = {".parquet": ParquetPart, ".arrow": ArrowPart, ".feather": ArrowPart, ".npy": ArrayPart}
    for file in files:
        if file.suffix not in kinds:
            raise UsageError(f"{file} is not a Parquet or Arrow file", HINT)
        yield kinds[file.suffix](file)
