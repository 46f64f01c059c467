"""Annotation JSON: COCO's images and captions, VQAv2's and GQA's questions and answers, and plain lists of objects.

Such a file is one JSON value, so it is read whole, once.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from blip2cli.errors import UsageError, reason
from blip2cli.host import storage
from blip2cli.inputs.columns import IMAGE_COLUMNS, ColumnChoice, choose_columns
from blip2cli.inputs.encoding import NotText, NotTextFile, decoded
from blip2cli.inputs.image_paths import joined
from blip2cli.inputs.inference import Inference
from blip2cli.inputs.jsonl import JsonlManifest
from blip2cli.inputs.manifest import Manifest
from blip2cli.records import Row

if TYPE_CHECKING:
    import pyarrow as pa

    from blip2cli.inputs.source import Source

NOT_CARRIED = ("id", "file_name", "image_id", "captions", "license", "date_captured", "flickr_url")
"""Fields of COCO's images that do not become columns, or become one with another name."""

READ = "Known are COCO's images, VQAv2's and GQA's questions, lists of objects, and JSON lines."


@dataclass(frozen=True)
class AnnotationTable:
    """What a file holds, as a table: its columns, its entries, and how an entry that is an object becomes a record."""

    names: Sequence[str]
    entries: Sequence[Any]
    record: Callable[[dict[str, Any]], Mapping[str, Any]]


class AnnotationManifest(Manifest):
    """One table of annotation JSON; the image's path is found in its column as in any manifest."""

    def __init__(self, name: str, table: AnnotationTable, columns: ColumnChoice) -> None:
        self.name = name
        self._table = table
        self.columns = choose_columns(name, list(table.names), columns)

    def rows(self, start: int = 0) -> Iterator[Row]:
        for number, entry in enumerate(islice(self._table.entries, start, None), start):
            if isinstance(entry, dict):
                yield self.columns.row(self._table.record(entry), number)
            else:
                yield self.columns.broken(number, f"entry {number + 1} is not a JSON object")

    def records(self) -> Iterator[Mapping[str, Any] | None]:
        """The entries with all their fields, also those that are not carried; None for one that is not an object."""
        for number, entry in enumerate(self._table.entries):
            record = self._table.record(entry) if isinstance(entry, dict) else None
            yield {"image": f"{self.name}#{number}", **record} if record else record

    def count(self) -> int | None:
        return len(self._table.entries)

    def schema(self) -> pa.Schema:
        objects = (entry for entry in self._table.entries if isinstance(entry, dict))
        return Inference(map(self._table.record, objects)).schema(self.columns.carried)


def open_annotations(name: str, columns: ColumnChoice) -> Source:
    """The source of a JSON file, which may hold JSON lines in spite of its name. Raises UsageError."""
    try:
        with storage.open_binary(name) as file:
            parsed = json.loads(decoded(file.read(), columns.encoding))
    except OSError as error:
        raise UsageError(f"cannot read {name}: {reason(error)}", storage.READING_HINT) from None
    except NotText as error:
        raise NotTextFile(name, str(error)) from None
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":
            return JsonlManifest(name, columns)
        raise UsageError(f"cannot read {name}: {error}", READ) from None
    except (ValueError, RecursionError):
        raise UsageError(f"cannot read {name}: it is not JSON", READ) from None
    table = _table(parsed, columns.root_for(name))
    if table is None:
        raise UsageError(f"{name} is not a kind of JSON that is read", READ)
    return AnnotationManifest(name, table, columns)


def _table(parsed: Any, root: str) -> AnnotationTable | None:
    """The table in a JSON value, by its shape; None where there is none."""
    if isinstance(parsed, list):
        return _listed(parsed)
    if not isinstance(parsed, dict):
        return None
    images, questions, annotations = (parsed.get(name) for name in ("images", "questions", "annotations"))
    if isinstance(images, list) and {"filename", "sentences"} <= set(_names(images[:1])):
        return _karpathy(images)
    if isinstance(images, list):
        return _coco(images, _captions(annotations))
    if isinstance(questions, list):
        named = set(_names(questions)) & set(IMAGE_COLUMNS)
        return _listed(questions) if named else _vqa(questions, str(parsed.get("data_subtype") or ""), root)
    if isinstance(annotations, list) and {"question_id", "answers"} <= set(_names(annotations[:1])):
        return _listed(annotations)
    first = next(iter(parsed.values()), None)
    return _gqa(parsed, root) if isinstance(first, dict) and {"question", "imageId"} <= set(first) else None


def _names(entries: Iterable[Any]) -> list[str]:
    """The fields that the entries have, in the order in which they turn up."""
    return list(dict.fromkeys(name for entry in entries if isinstance(entry, dict) for name in entry))


def _listed(entries: list[Any]) -> AnnotationTable | None:
    """A row for each object, with its fields unchanged."""
    names = _names(entries)
    return AnnotationTable(names, entries, lambda entry: entry) if names else None


def _coco(images: list[Any], captions: Mapping[str, list[str]]) -> AnnotationTable:
    """A row for each image, with its own plain fields, and its captions where the annotations are captions."""
    nested = {
        name for image in images if isinstance(image, dict) for name in image if isinstance(image[name], (dict, list))
    }
    named = _names(images)
    fields = [name for name in named if name not in {*NOT_CARRIED, *nested}]
    number_field = next((name for name in ("id", "image_id", "cocoid", "imgid") if name in named), None)
    names = ["file_name"] if "file_name" in named else []
    names += ["image_id"] if number_field else []
    names += [*fields, *(["captions"] if captions else [])]

    def record(image: dict[str, Any]) -> dict[str, Any]:
        number = image.get(number_field) if number_field else None
        own = {"file_name": image.get("file_name"), "image_id": number, "captions": captions.get(str(number), [])}
        return {**image, **own}

    return AnnotationTable(names, images, record)


def _karpathy(images: list[Any]) -> AnnotationTable:
    """A row for each image of Karpathy's splits of COCO and Flickr: its file, number, captions and plain fields."""
    left_out = ("filepath", "filename", "sentences", "sentids", "cocoid")
    fields = [name for name in _names(images) if name not in left_out]
    number = "cocoid" if "cocoid" in _names(images[:1]) else "imgid"

    def record(image: dict[str, Any]) -> dict[str, Any]:
        place = [part for part in (image.get("filepath"), image.get("filename")) if isinstance(part, str)]
        own = {"image": "/".join(place) or None, "image_id": image.get(number), "captions": _sentences(image)}
        return {**image, **own}

    return AnnotationTable(["image", "image_id", *fields, "captions"], images, record)


def _sentences(image: Mapping[str, Any]) -> list[str]:
    """The captions of an image as people wrote them."""
    sentences = image.get("sentences")
    found = []
    for sentence in sentences if isinstance(sentences, list) else ():
        if isinstance(sentence, dict) and isinstance(sentence.get("raw"), str):
            found.append(sentence["raw"].strip())
    return found


def _captions(annotations: Any) -> dict[str, list[str]]:
    """Image id → captions, in their order."""
    captions: dict[str, list[str]] = {}
    for entry in annotations if isinstance(annotations, list) else ():
        if isinstance(entry, dict) and isinstance(entry.get("caption"), str):
            captions.setdefault(str(entry.get("image_id")), []).append(entry["caption"])
    return captions


PROBED = 32
"""Questions of a file that are asked how the files of their images are named."""

PLAIN = ("jpg", "png")
"""Suffixes of images that are named by their ids alone."""


def _vqa(questions: list[Any], subtype: str, root: str) -> AnnotationTable:
    """A row for each question; its image is named as in COCO 2014 and 2015, as in 2017, or by its id alone.

    The naming that finds an image of one of the first questions is used for all; without any, the first.
    """
    older = f"COCO_{subtype.replace('-dev', '')}_" if subtype else ""  # test-dev2015 asks about images of test2015
    namings: list[Callable[[Any], str | None]] = [lambda image: _padded(older, image)]
    if older:
        namings.append(lambda image: _padded("", image))
    namings.append(lambda image: _plain(root, image))
    first = [entry.get("image_id") for entry in questions[:PROBED] if isinstance(entry, dict)]
    found = (name for name in namings if any(_exists(root, name(image)) for image in first))
    naming = next(found, namings[0] if any(_padded("", image) for image in first) else namings[-1])
    names = ["image", "question", "question_id", "image_id"]

    def record(question: dict[str, Any]) -> dict[str, Any]:
        return {**question, "image": naming(question.get("image_id"))}

    return AnnotationTable([*names, *(name for name in _names(questions) if name not in names)], questions, record)


def _padded(prefix: str, image: Any) -> str | None:
    """The image's file by its number in COCO."""
    if isinstance(image, str) and image.isdecimal() and len(image) <= 20:
        image = int(image)
    return f"{prefix}{image:012d}.jpg" if isinstance(image, int) else None


def _plain(root: str, image: Any) -> str | None:
    """The image's file by its id: with the suffix of a file that exists, else with the first of PLAIN."""
    if not isinstance(image, (str, int)) or image == "":
        return None
    if storage.is_url(root):
        return f"{image}.{PLAIN[0]}"
    names = [f"{image}.{suffix}" for suffix in PLAIN]
    return next((name for name in names if _exists(root, name)), names[0])


def _exists(root: str, image: str | None) -> bool:
    if image is None:
        return False
    try:
        return storage.exists(joined(root, image))
    except (OSError, ValueError):
        return False


def _gqa(questions: dict[str, Any], root: str) -> AnnotationTable:
    """A row for each question, with its answer where the file has it."""
    answers = any(isinstance(entry, dict) and "answer" in entry for entry in questions.values())
    entries = [
        {"question_id": number, **entry} if isinstance(entry, dict) else entry for number, entry in questions.items()
    ]

    def record(question: dict[str, Any]) -> dict[str, Any]:
        image = question.get("imageId")
        return {**question, "image": _plain(root, image), "image_id": image}

    return AnnotationTable(
        ["image", "question", "question_id", "image_id", *(["answer"] if answers else [])], entries, record
    )
