"""Result files of benchmarks: one JSON list, as pycocotools and the VQA evaluation read it.

Such a file must name every image or question. What failed has an empty text, and an `error` beside it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from blip2cli.errors import UsageError
from blip2cli.outputs.journal import CommitLog
from blip2cli.outputs.layout import Layout
from blip2cli.outputs.lines import LinesOutput
from blip2cli.records import Result, Row


class Results(LinesOutput):
    """A list of objects, an object a line; it is closed when the run is finished."""

    def __init__(self, out: Path, layout: Layout, journal: CommitLog) -> None:
        self.check(layout)
        super().__init__(out, layout, journal)

    keys = ("", "")
    """The names in each entry, but for that of an error."""

    def check(self, layout: Layout) -> None:
        """Check that the rows can be written so. Raises UsageError."""

    def entry(self, result: Result) -> dict[str, Any]:
        """A result as the evaluation wants it."""
        raise NotImplementedError

    def text(self, results: Sequence[Result]) -> bytes:
        parts = []
        for number, result in enumerate(results, self.rows):
            entry = self.entry(result)
            if result.error is not None:
                entry["error"] = str(result.error)
            line = json.dumps(entry, ensure_ascii=False).encode("utf-8", "backslashreplace")
            parts.append((b",\n" if number else b"[\n") + line)
        return b"".join(parts)

    def continues(self, data: bytes) -> bool:
        *whole, last = data.split(b"\n")
        entries = [line.removesuffix(b",") for line in whole if line not in (b"", b",", b"[", b"]")]
        return all(map(self._is_entry, entries)) and last[:2] in (b"", b"[", b"]", b",", b"{", b'{"')

    def _is_entry(self, line: bytes) -> bool:
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            return False
        return isinstance(entry, dict) and list(entry)[:2] == list(self.keys)

    def tail(self) -> bytes:
        return b"\n]\n" if self.rows else b"[\n]\n"

    def records(self) -> Iterator[dict[str, Any]]:
        text = self.out.read_text(encoding="utf-8").rstrip().removesuffix("]")
        for entry in json.loads(text + "]"):
            yield {**dict.fromkeys(column.name for column in self.layout.columns), "error": None, **entry}


class CocoResults(Results):
    """`image_id` and `caption`. The id is the input's `image_id` or `id`, or the number that ends the file's name."""

    keys = ("image_id", "caption")

    def check(self, layout: Layout) -> None:
        if not any(column.name == "caption" for column in layout.columns):
            hint = "Leave out --num-captions, or add --rank-by itm --keep 1."
            raise UsageError("--format coco holds one caption for each image", hint)

    def entry(self, result: Result) -> dict[str, Any]:
        return {"image_id": _image_id(result.row), "caption": self.layout.value(result, "caption") or ""}


class VqaResults(Results):
    """`question_id` and `answer`."""

    keys = ("question_id", "answer")

    def check(self, layout: Layout) -> None:
        if not any(column.name == "answer" for column in layout.columns):
            raise UsageError("--format vqa holds one answer for each question", "Leave out --wide.")

    def entry(self, result: Result) -> dict[str, Any]:
        answer = self.layout.value(result, "answer") or ""
        return {"question_id": result.row.columns.get("question_id"), "answer": answer}


def _image_id(row: Row) -> Any:
    for name in ("image_id", "id"):
        if row.columns.get(name) is not None:
            return row.columns[name]
    stem = PurePosixPath(row.name).stem
    number = re.search(r"\d+$", stem)
    return int(number[0]) if number else stem
