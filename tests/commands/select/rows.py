"""Results for tests of select."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tests.conftest import Typed

EXAMPLES = Path(__file__).parents[3] / "docs" / "examples"

IMAGES = sorted(path.name for path in EXAMPLES.glob("*.png"))

ROWS = [
    {"image": IMAGES[0], "id": 7, "caption": "a blue circle", "probability": 0.96, "tags": ["a", "b"], "error": None},
    {"image": IMAGES[1], "id": 8, "caption": "a, \"b\"", "probability": 0.5, "tags": [], "error": None},
    {"image": "gone.png", "id": 9, "caption": None, "probability": None, "tags": None, "error": "missing: no file"},
    {"image": IMAGES[2], "id": 10, "caption": "yes", "probability": 0.91, "tags": ["b"], "error": None},
]  # fmt: skip


def write(path: Path, rows: list[dict]) -> None:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
        return
    lines = [json.dumps(row) for row in rows]
    if path.suffix == ".csv":
        table = [list(rows[0]), *([json.dumps(v) if isinstance(v, list) else v for v in row.values()] for row in rows)]
        cells = [['"' + str("" if cell is None else cell).replace('"', '""') + '"' for cell in line] for line in table]
        lines = [",".join(line) for line in cells]
    path.write_text("\n".join(lines) + "\n")


def ids(ran: Typed) -> list[int]:
    return [int(row["id"]) for row in ran.rows]
