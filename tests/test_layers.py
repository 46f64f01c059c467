"""Which room may import which: along the way of the data, as the table says. Nobody imports the command line.

The table is in the order of the data, with what every room may use first; a room imports only rooms above it. Names
in a registry ("blip2cli.room.file:Class") count as imports too.
"""

import ast
import builtins
import re
import sys
from collections import Counter
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
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
    "records": "",
    "errors": "records",
    "host": "version errors records",
    "settings": "errors host",
    "tiny": "",
    # inputs → images → model → tasks → outputs
    "inputs": "errors records host",
    "images": "version errors records host inputs",
    "model": "errors records host settings tiny",
    "tasks": "errors records host settings inputs model",
    "outputs": "errors records host settings images",
    # nearest rows in files of features
    "features": "errors records host settings",
    # the whole way, and those who start it
    "run": "version errors records host settings inputs images model tasks outputs features",
    "api": "errors host settings inputs images model tasks outputs features run",
    "commands": "version errors records host settings tiny inputs images model tasks outputs features run api",
    "cli": "version errors host settings tasks run commands",
    # `blip2cli` itself, and `python -m blip2cli`
    "__init__": "api",
    "__main__": "host cli",
}
"""Room → the rooms it may import. "version" is `from blip2cli import __version__`."""

FUNCTION_LINES, FILE_LINES = 40, 400
"""The most lines of a function, and of a file."""

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


def test_no_modules_import_each_other() -> None:
    imports = {module: modules_imported(file) for module, file in MODULES.items()}
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        pytest.fail(f"these import each other: {' → '.join(reversed(error.args[1]))}")


def test_no_file_of_a_folder_hides_a_builtin_from_it() -> None:
    files = {path.stem for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE}
    assert not files & set(dir(builtins)), "once imported, it is a name in the folder's __init__"


def test_functions_fit_a_screen_and_files_can_be_read_at_once() -> None:
    """Except for the scripts that train the bundled model, and the benchmarks."""
    too_long = []
    for file in PACKAGE.rglob("*.py"):
        if not file.is_relative_to(PACKAGE / "tiny") and not file.is_relative_to(PACKAGE / "commands" / "bench"):
            source = file.read_text(encoding="utf-8")
            too_long += [(file, name) for name, lines in lengths_of_functions(source) if lines > FUNCTION_LINES]
            if len(source.splitlines()) > FILE_LINES:
                too_long.append((file, ""))
    assert not too_long


def lengths_of_functions(source: str) -> Iterator[tuple[str, int]]:
    """Names and lines of all functions, decorators included."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            assert node.end_lineno is not None
            yield node.name, node.end_lineno - first + 1


def test_no_two_classes_have_one_name() -> None:
    names: Counter[str] = Counter()
    for file in PACKAGE.rglob("*.py"):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        names.update(node.name for node in tree.body if isinstance(node, ast.ClassDef))
    assert [name for name, count in names.items() if count > 1] == []


def test_no_two_files_of_tests_have_one_name() -> None:
    names = Counter(path.name for path in Path(__file__).parent.rglob("test_*.py"))
    assert [name for name, count in names.items() if count > 1] == [], "pytest could not collect them together"


def test_only_the_terminal_room_touches_rich_and_tqdm() -> None:
    for file in PACKAGE.rglob("*.py"):
        libraries = {name.partition(".")[0] for name in names_imported(file)}
        assert file.parent == PACKAGE / "host" / "terminal" or not libraries & {"rich", "tqdm"}, file


def test_options_are_described_in_records() -> None:
    """Names, help and checks of options are in records; these files turn them into Typer's."""
    files = {file.name for file in (PACKAGE / "cli").glob("*.py") if "typer.Option(" in file.read_text("utf-8")}
    assert files == {"__init__.py", "config.py", "options.py"}, "--version, --config, and all others"


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


def module_of(file: Path) -> str:
    """The full name of the module that a file of the package is."""
    parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(file): file for file in PACKAGE.rglob("*.py")}
"""Name → file of all modules of the package."""


def modules_imported(file: Path) -> set[str]:
    """The package's modules that a file imports, within functions or for type checkers too; names in registries do
    not count.

    The package itself, from which only the version is imported, is left out.
    """
    imported: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            imported.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                module = f"{node.module}.{alias.name}"
                imported.add(module if module in MODULES else str(node.module))
    return imported & (set(MODULES) - {PACKAGE.name, module_of(file)})


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
