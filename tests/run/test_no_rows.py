"""A run of no rows says why there are none, and loads no model for them."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from blip2cli.records import Row
from blip2cli.run.plan import Plan
from tests.conftest import Typed

Run = Callable[..., Typed]


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """From when it is asked for, a run that loads a model fails."""

    def refused(plan: Plan, rows: Iterator[Row]) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(Plan, "open_pipeline", refused)


@pytest.mark.parametrize("listed", ["", "\n\n"])
def test_an_empty_list_on_stdin_is_an_error(typed: Run, no_model: None, listed: str) -> None:
    run = typed("caption", "-", stdin=listed)
    assert run.code == 2
    assert run.err.startswith("blip2: there are no paths on stdin\n       Check the command before the pipe")
    assert not run.out


@pytest.mark.parametrize("out", ["", "o.jsonl", "o.parquet"])
def test_a_table_without_rows_is_named(typed: Run, no_model: None, out: str) -> None:
    Path("e.csv").write_text("image\n")
    run = typed("caption", "e.csv", *(["--out", out] if out else []))
    assert run.code == 0
    assert run.err.startswith("0 rows")
    assert run.err.endswith("\n  e.csv has no rows\n")
    assert "images/s" not in run.err


def test_a_part_without_rows_is_named(typed: Run, no_model: None) -> None:
    Path("m.csv").write_text("image\na.png\n")
    run = typed("caption", "m.csv", "--shard", "1/2")
    assert run.code == 0
    assert run.err.endswith("\n  part 1/2 of m.csv has no rows\n")


def test_a_run_that_is_complete_says_so(typed: Run, photos: Path, request: pytest.FixtureRequest) -> None:
    words = ("caption", photos, "--limit", 2, "--out", "o.jsonl")
    assert "nothing new" not in typed(*words).err
    request.getfixturevalue("no_model")
    run = typed(*words, "--resume")
    assert run.code == 0
    said = "nothing new: o.jsonl has as many rows as the input; --update compares all their names"
    assert run.err.endswith(f"\n  {said}\n")


@pytest.mark.parametrize("out", [None, "texts"])
def test_images_that_have_a_text_are_counted_with_what_to_do(
    typed: Run, photos: Path, out: str | None, request: pytest.FixtureRequest
) -> None:
    images = [str(path) for path in sorted(photos.glob("*.jpg"))[:3]]
    local = [Path(image).name for image in images]
    for image in local:
        Path(image).write_bytes((photos / image).read_bytes())
    words = ("caption", *local, "--format", "sidecar", *(["--out", out] if out else []))
    where = " in texts" if out else ""
    assert "skipped" not in typed(*words[:2], *words[4:]).err
    run = typed(*words)
    assert run.err.startswith("2 rows")
    assert run.err.endswith(f"\n  1 image skipped: it has a .txt{where}; --existing overwrite replaces it\n")
    request.getfixturevalue("no_model")
    run = typed(*words)
    assert run.code == 0
    assert run.err.startswith("0 rows")
    assert run.err.endswith(f"\n  3 images skipped: they have a .txt{where}; --existing overwrite replaces them\n")


def test_a_retry_has_its_own_reason(typed: Run, photos: Path) -> None:
    Path("a.png").write_bytes(b"no image")
    words = ("caption", "a.png", photos, "--limit", 2, "--out", "o.jsonl")
    assert typed(*words).code == 3
    Path("a.png").write_bytes((photos / "01.png").read_bytes())
    run = typed(*words, "--resume", "--retry-errors")
    assert run.code == 0
    assert run.err.startswith("1 row was computed again, 0 still with errors\n0 rows to o.jsonl, 2 before")
    assert run.err.endswith("\n  the other rows of the input were there already\n")
