"""The page on the architecture knows all rooms, and quotes the table of who imports whom as it is."""

import re

from tests.docs.pages import REPOSITORY
from tests.test_layers import MAY_IMPORT, PACKAGE

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


def test_the_drawing_has_every_room_in_the_order_of_imports_and_every_folder() -> None:
    drawing = PAGE.partition("```text\nblip2cli/\n")[2].partition("```")[0]
    drawn = re.findall(r"^( +)(\w+(?:/|\.py)) +\S", drawing, re.MULTILINE)
    rooms = [name.removesuffix("/").removesuffix(".py") for indent, name in drawn if len(indent) == 2]
    assert rooms == [room for room in MAY_IMPORT if not room.startswith("__")]
    inner = {file.parent.relative_to(PACKAGE).as_posix() for file in PACKAGE.glob("*/*/__init__.py")}
    room, folders = "", set()
    for indent, name in drawn:
        if len(indent) == 2:
            room = name
        else:
            folders.add(room + name.removesuffix("/"))
    assert folders == {folder for folder in inner if not folder.startswith("commands/")}, "commands are named below"


def test_files_that_the_page_names_by_their_path_exist() -> None:
    for name in re.findall(r"`((?:[a-z_]+/)+[a-z_]+\.py)`", PAGE):
        assert (PACKAGE / name).exists() or (REPOSITORY / name).exists(), name
