"""Which room may import which: along the way of the data, as the table says. Nobody imports the command line.

The table stands in the order of the way, what everyone may use first; a room imports only what stands above it. Names
in a registry ("blip2cli.room.file:Class") count as imports too.
"""

import ast
import builtins
import re
import sys
from collections import Counter
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    from tomllib import loads
else:
    from tomli import loads

PACKAGE = Path(__file__).parents[1] / "blip2cli"

MAY_IMPORT = {
    # what all rooms may use
    "errors": "",
    "records": "",
    "host": "version errors",
    "settings": "errors host",
    "tiny": "",
    # inputs → images → model → tasks → outputs
    "inputs": "errors records host",
    "images": "version errors records host inputs",
    "model": "errors records host settings tiny",
    "tasks": "errors records host settings inputs model",
    "outputs": "errors records host settings images",
    # the whole way, and those who start it
    "run": "version errors records host settings inputs images model tasks outputs",
    "api": "host settings inputs images model tasks outputs run",
    "commands": "version errors records host settings tiny inputs images model tasks outputs run api",
    "cli": "version errors host settings tasks run commands",
    # `blip2cli` itself, and `python -m blip2cli`
    "__init__": "api",
    "__main__": "cli",
}
"""Room → the rooms it may import. "version" is `from blip2cli import __version__`."""

REGISTERED = re.compile(r"blip2cli\.[\w.]+:\w+")


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_a_room_imports_only_what_the_table_says(room: str) -> None:
    for file in files_of(room):
        imported = {room_of(name) for name in names_imported(file)} - {room, None}
        assert imported <= set(MAY_IMPORT[room].split()), file


def test_the_table_knows_every_room_and_runs_one_way() -> None:
    entries = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert entries == set(MAY_IMPORT)
    above = {"version"}
    for room, others in MAY_IMPORT.items():
        assert set(others.split()) <= above, room
        above.add(room)


def test_no_file_of_a_folder_hides_a_builtin_from_it() -> None:
    files = {path.stem for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE}
    assert not files & set(dir(builtins)), "once imported, it is a name in the folder's __init__"


def test_no_two_files_of_tests_have_one_name() -> None:
    names = Counter(path.name for path in Path(__file__).parent.rglob("test_*.py"))
    assert [name for name, count in names.items() if count > 1] == [], "pytest could not collect them together"


def test_only_the_terminal_room_touches_rich_and_tqdm() -> None:
    for file in PACKAGE.rglob("*.py"):
        libraries = {name.partition(".")[0] for name in names_imported(file)}
        assert file.stem == "terminal" or not libraries & {"rich", "tqdm"}, file


def files_of(room: str) -> list[Path]:
    folder = PACKAGE / room
    return sorted(folder.rglob("*.py")) if folder.is_dir() else [folder.with_suffix(".py")]


def names_imported(file: Path) -> Iterator[str]:
    """Full names of what a file imports anywhere in it."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level < len(file.relative_to(PACKAGE).parts), f"{file}: a relative import leaves the room"
            yield from (f"{node.module}.{alias.name}" for alias in node.names if node.level == 0)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and REGISTERED.fullmatch(node.value):
            yield node.value


def room_of(name: str) -> str | None:
    """The room that a name is in; None for other packages."""
    package, _, rest = name.partition(".")
    if package != PACKAGE.name:
        return None
    return "version" if rest == "__version__" else re.split(r"[.:]", rest)[0] or "__init__"


def test_every_package_that_is_imported_is_declared() -> None:
    declared = {re.split(r"[^\w-]", line, maxsplit=1)[0].lower().replace("-", "_") for line in requirements()}
    providers = packages_distributions()
    for file in PACKAGE.rglob("*.py"):
        imported = {name.partition(".")[0] for name in names_imported(file)}
        for name in imported - {PACKAGE.name, *sys.stdlib_module_names}:
            known = {provider.lower().replace("-", "_") for provider in providers.get(name, [name])}
            assert known & declared, f"{file} imports {name}"


def requirements() -> list[str]:
    """What pyproject.toml declares, extras and all but those for developers."""
    project = loads((PACKAGE.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = {name: lines for name, lines in project["optional-dependencies"].items() if name not in ("dev", "docs")}
    return [*project["dependencies"], *(line for lines in extras.values() for line in lines)]
