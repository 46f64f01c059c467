"""Formats of images: the suffixes of their files, and what reads them. The one table for
inputs, decoding and outputs.

Nothing here opens a file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import PurePosixPath

NO_IMAGES_HINT = "Images end in .jpg, .png, .webp, .tif, .avif and so on."
"""What to know where no images are found."""


@dataclass(frozen=True)
class ImageFormat:
    """One format: the suffixes of its files, of which the first is written, and the
    package it needs besides Pillow.

    `extra` is our extra that brings the package.
    """

    suffixes: tuple[str, ...]
    package: str = ""
    extra: str = ""

    @property
    def installed(self) -> bool:
        """Whether the package that reads it is here."""
        return not self.package or find_spec(self.package) is not None


IMAGE_FORMATS = {
    "JPEG": ImageFormat((".jpg", ".jpeg", ".jpe", ".jfif")),
    "MPO": ImageFormat((".jpg", ".mpo")),  # a JPEG followed by more pictures, as phones write portraits
    "PNG": ImageFormat((".png", ".apng")),
    "WEBP": ImageFormat((".webp",)),
    "GIF": ImageFormat((".gif",)),
    "BMP": ImageFormat((".bmp",)),
    "TIFF": ImageFormat((".tif", ".tiff")),
    "AVIF": ImageFormat((".avif", ".avifs")),
    "HEIF": ImageFormat((".heic", ".heif", ".hif", ".heics", ".heifs"), "pillow_heif", "heif"),
    "PPM": ImageFormat((".ppm", ".pgm", ".pbm", ".pnm", ".pfm")),
    "JPEG2000": ImageFormat((".jp2", ".j2k", ".jpf", ".jpx", ".j2c", ".jpc")),
    "ICO": ImageFormat((".ico",)),
    "QOI": ImageFormat((".qoi",)),
    "TGA": ImageFormat((".tga",)),
    "DIB": ImageFormat((".dib",)),
    "PCX": ImageFormat((".pcx",)),
}
"""Pillow's name of a format → the format, in the order in which they are tried: those
without a magic number last.

No others are opened, whatever else Pillow can read: no EPS (runs a program), no PDF, no
stub plug-ins.
"""

BESIDE_IMAGES = frozenset(
    ".txt .caption .captions .tags .cls .json .jsonl .csv .tsv .xml .xmp .yaml .yml .toml .ini .md .html .pdf .log .db "
    ".npy .npz .pt .pth .safetensors .aae .journal .lock .py .sh".split()
)
"""Suffixes of files that are often in folders of images: texts, tables, caches, files of
programs."""


MAX_NAMED = 8
"""Suffixes that are named."""

MOST_SUFFIXES, LONGEST_SUFFIX = 1000, 16
"""Suffixes that are counted separately, and letters of one."""

OTHERS = "others"


def suffix_in(name: str) -> str:
    """The last suffix of a file's name, in lower case."""
    return PurePosixPath(name).suffix.lower()


def is_image(name: str) -> bool:
    """Whether a file is taken for an image by its name."""
    return suffix_in(name) in read_suffixes()


@cache
def read_suffixes() -> frozenset[str]:
    """The suffixes of the formats that are read here."""
    return frozenset(suffix for kind in IMAGE_FORMATS.values() if kind.installed for suffix in kind.suffixes)


def install_hint(suffix: str) -> str | None:
    """The command that installs what reads files of a suffix; None where nothing of ours
    does, or it is here."""
    for kind in IMAGE_FORMATS.values():
        if suffix in kind.suffixes and not kind.installed:
            return f"pip install 'blip2cli[{kind.extra}]'"
    return None


def not_read(name: str) -> str | None:
    """The suffix under which a file that is not read is counted; None for images and what
    is often beside them."""
    suffix = suffix_in(name)
    return None if suffix in read_suffixes() or suffix in BESIDE_IMAGES else suffix


def note_unread(counts: Counter[str], name: str) -> None:
    """Count a file that is not read, unless files of its kind are often beside images."""
    suffix = not_read(name)
    if suffix is not None:
        shown = suffix[:LONGEST_SUFFIX]
        counts[shown if shown in counts or len(counts) < MOST_SUFFIXES else OTHERS] += 1


def unread_among(names: Iterable[str]) -> Counter[str]:
    """How many of the files are not read, by suffix."""
    counts: Counter[str] = Counter()
    for name in names:
        note_unread(counts, name)
    return counts


def unread_summary(counts: Mapping[str, int]) -> str:
    """A line that says what was not read, by suffix: "12 files were not read: 10 .heic
    (pip install …), 2 .mov"."""
    ranked = Counter(counts).most_common()
    parts = []
    for suffix, count in ranked[:MAX_NAMED]:
        hint = install_hint(suffix)
        parts.append(f"{count:,} {suffix or 'without a suffix'}{f' ({hint})' if hint else ''}")
    if rest := sum(count for _, count in ranked[MAX_NAMED:]):
        parts.append(f"{rest:,} {OTHERS}")
    total = sum(counts.values())
    return f"{total:,} {'file was' if total == 1 else 'files were'} not read: {', '.join(parts)}"
