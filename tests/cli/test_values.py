"""Wrong values of options: two lines in our words and exit code 2, for every option of every command."""

import inspect
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import get_args

import pytest
from typer.main import get_command

from blip2cli import cli
from blip2cli.cli import app, function_of
from blip2cli.cli.values import Value
from blip2cli.tasks import TASKS
from tests.conftest import Typed

Run = Callable[..., Typed]
CIRCLE = Path(__file__).parents[2] / "docs" / "examples" / "red-circle.png"
COMMANDS = {name: function_of(name) for name in cli.COMMANDS}

WRONG_NUMBERS = ("x", "", "nan", "inf", "-inf", str(2**70), f"-{2**70}", "1e400", "1_000", "9" * 5000, "0x10")

WRONG_BY_METAVAR = {
    "DEVICE": ("gpu", "cuda:x", "CUDA", "cpu:0", ""),
    "LIST": ("gpu", "cuda:0,", "cpu:0", "cpu:²", "all,cpu", ""),
    "auto|N": ("0", "-1", "x", "1.5", "²", str(2**70), ""),
    "I/N": ("0/4", "5/4", "1", "x/y", "1/", "-1/4", ""),
    "N|N-M": ("0", "4-2", "x", "1-", ""),
    "N,N,...": ("0", "1,x", "1,,2", ""),
}


def options(command: str) -> Iterator[tuple[str, Value]]:
    """The options of a command that take values, with what they take."""
    for parameter in inspect.signature(COMMANDS[command]).parameters.values():
        _, *marks = get_args(parameter.annotation)
        if len(marks) == 2 and marks[1].kind is not bool:
            yield marks[0].default, marks[1]


def wrong_values(option: str, value: Value) -> list[str]:
    if value.kind in (int, float):
        below = [] if value.low is None else [f"{value.low - 1:.15g}"]
        above = [] if value.high is None else [f"{value.high + 1:.15g}"]
        return [*WRONG_NUMBERS, *(["1.5"] if value.kind is int else []), *below, *above]
    if value.choices:
        return ["x", "", value.choices[0].upper()]
    if option == "--dtypes":
        return ["fp17", "fp32,", "auto", ""]
    return list(WRONG_BY_METAVAR.get(value.metavar, () if value.metavar == "TEXT" else ("", " ")))


@pytest.mark.parametrize("command", COMMANDS)
def test_a_wrong_value_is_two_lines_and_exit_code_2(typed: Run, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "app", partial(get_command(app)))  # made once, as making it takes longest
    ray = ["--engine", "ray"] if command in TASKS else []
    required = {"score": ["--references", str(CIRCLE)]}.get(command, [])
    arguments = [] if command in ("doctor", "bench") else [str(CIRCLE)]
    for option, value in options(command):
        for text in wrong_values(option, value):
            ran = typed(command, *arguments, *required, *(ray if option == "--replicas" else ()), f"{option}={text}")
            shown = (command, option, text[:40], ran.err)
            assert (ran.code, ran.out) == (2, ""), shown
            assert ran.err.startswith(f"blip2: {option} ") and ran.err.count("\n") == 2, shown
            assert "Invalid value" not in ran.err and len(ran.err) < 400, shown


@pytest.mark.parametrize("command", sorted(COMMANDS.keys() - {"doctor", "bench"}))
def test_an_empty_argument_is_refused(typed: Run, command: str) -> None:
    ran = typed(command, "", *(("--references", CIRCLE) if command == "score" else ()))
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("blip2: an argument is empty\n       It takes ") and ran.err.count("\n") == 2


def test_every_option_that_takes_a_value_is_tried() -> None:
    for command in COMMANDS:
        for option, value in options(command):
            assert value.metavar == "TEXT" or wrong_values(option, value), (command, option)


def test_right_values_at_the_bounds_are_taken(typed: Run) -> None:
    numbers = ("--limit", 2**63 - 1, "--seed", 2**63 - 1, "--image-timeout", 86_400, "--commit-every", 86_400)
    ran = typed("caption", CIRCLE, *numbers, "--workers", 1)
    assert ran.code == 0, ran.err


def test_spelling_is_checked_before_torch_is_imported(tmp_path: Path) -> None:
    script = """
import sys
from blip2cli.cli import main
wrong = [["caption", IMAGE, "--device", "gpu"], ["caption", IMAGE, "--devices", "gpu"], ["vqa", IMAGE, "--dtype", "x"],
         ["embed", IMAGE, "--shard", "0/3"], ["match", IMAGE, "--batch-size", "0"], ["chat", IMAGE, "--device", "x"],
         ["search", IMAGE, "x", "--device", "gpu"], ["doctor", "--device", "gpu"], ["bench", "--device", "gpu"],
         ["bench", "--dtypes", "x"], ["bench", "--batch-sizes", "x"], ["report", IMAGE, "--thumbnail", "-1"]]
for words in wrong:
    sys.argv = ["blip2", *words]
    try:
        main()
    except SystemExit as end:
        assert end.code == 2, words
assert not {"torch", "transformers"} & set(sys.modules)
"""
    script = script.replace("IMAGE", repr(str(CIRCLE)))
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path)
    assert ran.returncode == 0 and len(ran.stderr.splitlines()) == 24, ran.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_the_usage_line_names_arguments_once(typed: Run, command: str) -> None:
    usage = " ".join(typed(command, "--help").out.split()).partition("Usage: ")[2].partition(" [OPTIONS]")[2]
    assert usage and "...]..." not in usage and "......" not in usage
    named = {"caption": " INPUT... ", "search": " FEATURES [QUERY...] ", "models": " [MODEL]... ", "chat": " IMAGE "}
    assert usage.startswith(named.get(command, " "))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("limit = true", "--limit True is not a text or a number"),
        ("limit = [1, 2]", "--limit [1, 2] is not a text or a number"),
        ("limit = 0", "--limit 0 is below 1"),
        ("limit = 1.5", "--limit 1.5 is not a whole number"),
        ("limit = inf", "--limit inf is not a whole number"),
        ('device = "gpu"', "--device gpu is not a device"),
        ("out = false", "--out False is not a text or a number"),
        ('out = "a\\u0000b.jsonl"', "--out contains a NUL character"),
        ('quiet = "perhaps"', "run.toml: quiet is true or false, not perhaps"),
        ("quiet = 2", "run.toml: quiet is true or false, not 2"),
    ],
)
def test_values_of_a_file_are_checked_alike(typed: Run, text: str, told: str) -> None:
    Path("run.toml").write_text(text)
    ran = typed("caption", CIRCLE, "--config", "run.toml")
    assert ran.code == 2 and ran.err.startswith(f"blip2: {told}") and ran.err.count("\n") == 2, ran.err
