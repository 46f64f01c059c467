"""The page on the architecture knows all rooms, and quotes the table of who imports whom as it is."""

import re

from tests.docs.pages import REPOSITORY
from tests.test_layers import MAY_IMPORT

PAGE = (REPOSITORY / "docs" / "architecture.md").read_text(encoding="utf-8")


def test_the_page_names_every_room() -> None:
    named = set(re.findall(r"`(\w+)(?:/|\.py)`", PAGE))
    assert {room for room in MAY_IMPORT if not room.startswith("__")} <= named


def test_the_rows_of_the_table_are_those_of_the_test() -> None:
    _, _, section = PAGE.partition("## Who imports whom")
    rows = re.findall(r"^\| `(\w+)` \| (`.*`) \|$", section.partition("\n## ")[0], re.MULTILINE)
    assert rows
    for room, others in rows:
        assert re.findall(r"`(\w+)`", others) == MAY_IMPORT[room].split()
