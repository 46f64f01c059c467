"""The records that travel between rooms. Frozen, with named fields; they have no behaviour beyond their own data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, cast

if TYPE_CHECKING:
    import numpy as np
    import torch


ErrorKind = Literal[
    "missing",
    "empty",
    "unreadable",
    "unsupported",
    "truncated",
    "too-large",
    "timeout",
    "crashed",
    "prompt-too-long",
    "text-too-long",
    "conflict",
    "failed",
]
"""The kinds of errors of rows, by which they are counted."""


@dataclass(frozen=True, slots=True)
class RowError:
    """Why a row has no result: the kind of error, and a few words more."""

    kind: ErrorKind
    detail: str = ""

    def __str__(self) -> str:
        """The error as outputs show it."""
        return f"{self.kind}: {self.detail}" if self.detail else self.kind

    @classmethod
    def parsed(cls, text: str) -> RowError:
        """The error that is shown so; what others wrote may have a kind of its own."""
        kind, _, detail = text.partition(":")
        return cls(cast("ErrorKind", kind), detail.removeprefix(" "))

    @classmethod
    def missing(cls, detail: str, columns: Mapping[str, Any]) -> RowError:
        """The error of a row that lacks something; if it is a row of results that had an error, it keeps that."""
        earlier = columns.get("error")
        return cls.parsed(earlier) if isinstance(earlier, str) and earlier.strip() else cls("missing", detail)


@dataclass(frozen=True, slots=True)
class ImageRef:
    """Where the bytes of an image are. Exactly one of `path`, `data` and `url` is set.

    `path` is a file or URL that the user named, `size` bytes of it from `offset` on where the file is an archive;
    `data` is the bytes themselves; `url` comes from a manifest, which may come from anybody: it is fetched with
    checks, only from public addresses unless `private`. With `within` the file is read only if it is really inside
    that folder.
    """

    path: str | None = None
    data: bytes | None = None
    url: str | None = None
    private: bool = False
    offset: int = 0
    size: int | None = None
    within: str | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One input row.

    `index` counts the rows of the whole run from 0; `name` is what the output's `image` column says; `columns` are the
    manifest's other columns, to be copied unchanged; `text` is the manifest's question or text cell; `features` is an
    array that was computed from the image earlier, for tasks that take it in place of the image. A row with an `error`
    has no image. The result of a row that is `kept` is in an earlier output.
    """

    index: int
    name: str
    image: ImageRef | None = None
    columns: Mapping[str, Any] = field(default_factory=dict)
    text: str | None = None
    error: RowError | None = None
    kept: bool = False
    features: np.ndarray | None = None

    @property
    def to_compute(self) -> bool:
        """Whether the row has to be computed: it has no error yet, and no earlier result is kept."""
        return self.error is None and not self.kept

    @property
    def held(self) -> int:
        """Bytes that the row holds in memory: those of an image that came in bytes, features, and texts."""
        image = len(self.image.data) if self.image and self.image.data else 0
        features = 0 if self.features is None else self.features.nbytes
        return image + features + sum(len(value) for value in self.columns.values() if isinstance(value, (str, bytes)))

    def without_bytes(self) -> Row:
        """The row without its image's bytes, if it holds them."""
        return replace(self, image=None) if self.image and self.image.data is not None else self


@dataclass(frozen=True, slots=True)
class Fitting:
    """How a checkpoint's processor brings an upright image to a square of `side` x `side` pixels.

    Args:
        resize: whether images are resized first.
        size: height and width that they are squashed to; None for the square's.
        shortest_edge: to which the shorter side is brought instead, in the image's proportions.
        longest_edge: what the longer side is then at most.
        resample: Pillow's number of the filter; 3 is bicubic.
        crop: whether the square is cut out of the middle, with black around an image that is too small.
        convert_rgb: whether images in other colours are converted to RGB; if not, they are refused.
    """

    resize: bool = True
    size: tuple[int, int] | None = None
    shortest_edge: int | None = None
    longest_edge: int | None = None
    resample: int = 3
    crop: bool = False
    convert_rgb: bool = True


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows with their pixels.

    `pixels` is uint8 [images, side, side, 3], each distinct image once; `image_of[i]` is the position in it of row i's
    image: None where the row has no image, is kept, or has an error, which `errors[i]` then holds. `digests` name the
    images' bytes, so that the same bytes in a later batch can be recognised.
    """

    rows: tuple[Row, ...]
    pixels: torch.Tensor
    image_of: tuple[int | None, ...]
    errors: tuple[RowError | None, ...]
    digests: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Column:
    """A column that a task adds. `tensor` has a shape and a dtype (fp32 or fp16); the others have none.

    The texts of `strings` may be ranked, the `best_first`: where there is room for one, it is the first.
    """

    name: str
    kind: Literal["string", "strings", "boolean", "integer", "number", "numbers", "tensor"]
    shape: tuple[int, ...] = ()
    dtype: Literal["fp32", "fp16"] = "fp32"
    best_first: bool = False


@dataclass(frozen=True, slots=True)
class Result:
    """One output row: the row it answers, the values of the task's columns in their order, and the error if any.

    `last` marks the last of the rows that belong to one input row: a commit is possible only after such a row. A
    row that is `left_out` counts as done and is not written. For an `empty` one the model wrote a text without words.
    """

    row: Row
    values: tuple[Any, ...]
    error: RowError | None = None
    last: bool = True
    left_out: bool = False
    empty: bool = False
