"""What is tried with any Python, without PyTorch: `python -m tests.versions.smoke`, in the project's folder.

Every file compiles, every command shows its help and refuses a wrong value, inputs are read and images decoded.
"""

import contextlib
import io
import sys
from pathlib import Path

from blip2cli.cli import COMMANDS, main
from blip2cli.images.decode import Reading, decode
from blip2cli.inputs import ColumnChoice, open_source

ROOT = Path(__file__).parents[2]


def typed(*words: str) -> tuple[object, str, str]:
    """Exit code, stdout and stderr of a command line."""
    sys.argv = ["blip2", *words]
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as end:
            return end.code or 0, out.getvalue(), err.getvalue()
    raise AssertionError("main returned")


def check_files() -> None:
    for file in (ROOT / "blip2cli").rglob("*.py"):
        compile(file.read_text(encoding="utf-8"), str(file), "exec")


def check_commands() -> None:
    for name in COMMANDS:
        code, out, _ = typed(name, "--help")
        assert code == 0 and "--debug" in out, name
    code, out, err = typed("caption", "x.jpg", "--limit", "0")
    assert (code, out) == (2, "") and err.startswith("blip2: --limit 0 is below 1\n"), err
    code, out, err = typed("doctor", "--device", "gpu")
    assert (code, out) == (2, "") and err.startswith("blip2: --device gpu is not a device\n"), err


def check_inputs() -> None:
    examples = ROOT / "docs" / "examples"
    rows = list(open_source([str(examples)], ColumnChoice()).rows())
    assert rows and all(row.error is None for row in rows)
    for path in examples.glob("*.png"):
        assert decode(path.read_bytes(), Reading(64)).shape == (64, 64, 3)


if __name__ == "__main__":
    check_files()
    check_commands()
    check_inputs()
    print(f"Python {sys.version.split()[0]}: files, commands and inputs work")
