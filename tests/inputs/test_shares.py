"""--shard I/N: fixed parts of any input."""

import io
import zipfile
from collections.abc import Callable
from itertools import chain
from pathlib import Path

import pytest

from blip2cli.inputs import ColumnChoice, open_source
from blip2cli.inputs.folder import image_row
from blip2cli.inputs.listing import Listing
from tests.conftest import Typed

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
Run = Callable[..., Typed]


@pytest.fixture
def inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Thirteen rows: a folder and a manifest."""
    monkeypatch.chdir(tmp_path)
    Path("p").mkdir()
    for number in range(6):
        Path(f"p/{number}.jpg").touch()
    Path("m.csv").write_text("image\n" + "".join(f"m{number}.jpg\n" for number in range(7)))
    return ["p", "m.csv"]


def names(inputs: list[str], share: tuple[int, int] | None, start: int = 0, limit: int | None = None) -> list[str]:
    source = open_source(inputs, ColumnChoice(), limit, share)
    before = names(inputs, share, 0, limit)[start - 1] if start else None
    rows = list(source.rows(start, before))
    assert [row.index for row in rows] == list(range(start, start + len(rows)))
    if start == 0 and inputs != ["-"]:
        assert source.count() == len(rows)
    return [row.name for row in rows]


@pytest.mark.parametrize("of", [1, 2, 3, 5, 13, 20])
def test_shares_one_after_the_other_are_the_input(inputs: list[str], of: int) -> None:
    shares = [names(inputs, (number, of)) for number in range(1, of + 1)]
    assert list(chain(*shares)) == names(inputs, None)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_a_share_is_resumed_at_every_row(inputs: list[str]) -> None:
    share = names(inputs, (2, 3))
    for start in range(1, len(share) + 1):
        assert names(inputs, (2, 3), start) == share[start:]
    assert names(inputs, (2, 3), 2, 3) == share[2:3]


def test_where_the_number_of_rows_is_not_known_every_nth_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    every = [f"{number}.jpg" for number in range(10)]

    def listed(self: Listing, start: int = 0) -> object:
        return map(image_row, every[start:])

    monkeypatch.setattr(Listing, "rows", listed)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(b"0.jpg"))))  # not read, not empty
    assert [names(["-"], (number, 4)) for number in range(1, 5)] == [every[at::4] for at in range(4)]
    assert names(["-"], (2, 4), 2) == every[1::4][2:]


def test_a_shard_is_part_of_what_a_resume_must_share(typed: Run) -> None:
    assert typed("caption", EXAMPLES, "--shard", "1/3", "--out", "o.jsonl").code == 0
    ran = typed("caption", EXAMPLES, "--shard", "2/3", "--out", "o.jsonl", "--resume")
    assert ran.code == 2 and "shard was '1/3', is '2/3'" in ran.err


@pytest.mark.parametrize("shard", ["0/3", "4/3", "3", "a/b", "1/0", "-1/3"])
def test_what_is_no_shard(typed: Run, shard: str) -> None:
    ran = typed("caption", EXAMPLES, "--shard", shard)
    assert ran.code == 2 and f"--shard {shard} is not a part such as 3/16" in ran.err


def test_a_stretch_is_cut_from_a_zip_archive_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with zipfile.ZipFile("a.zip", "w") as archive:
        for number in range(5):
            archive.writestr(f"{number}.jpg", b"")
    rows = list(open_source(["a.zip"], ColumnChoice()).stretch(2, 4))
    assert [(row.index, row.name) for row in rows] == [(2, "a.zip/2.jpg"), (3, "a.zip/3.jpg")]
