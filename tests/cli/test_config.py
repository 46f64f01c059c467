"""--config: options from a TOML file."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Typed

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
Run = Callable[..., Typed]


def write(text: str) -> str:
    Path("run.toml").write_text(text.replace("EXAMPLES", str(EXAMPLES)))
    return "run.toml"


def test_a_file_gives_inputs_and_options_under_their_names(typed: Run) -> None:
    file = write('inputs = ["EXAMPLES"]\nlimit = 2\nmax-new-tokens = 2\nout = "o.jsonl"\nquiet = true\n')
    ran = typed("caption", "--config", file)
    assert (ran.code, ran.err) == (0, "")
    assert [row["caption"] for row in map(json.loads, Path("o.jsonl").read_text().splitlines())] == [
        "a blue",
        "a brown",
    ]


def test_an_option_has_all_the_names_that_it_has_when_typed(typed: Run) -> None:
    file = write('inputs = "EXAMPLES/red-circle.png"\n[classify]\nclass = ["a circle", "a triangle"]\n')
    assert typed("classify", "--config", file).rows[0]["label"] == "a circle"
    file = write('inputs = "EXAMPLES/red-circle.png"\nquestion = "what shape is it?"\n')
    assert typed("vqa", "--config", file).rows[0]["answer"] == "circle"


def test_the_command_line_wins(typed: Run) -> None:
    file = write('inputs = "EXAMPLES/blue-circle.png"\nmax_new_tokens = 2\n')
    assert typed("caption", "--config", file, "--max-new-tokens", 3).rows[0]["caption"] == "a blue circle"
    ran = typed("caption", EXAMPLES / "red-circle.png", "--config", file)
    assert [row["caption"] for row in ran.rows] == ["a red"]


def test_a_table_is_for_the_command_of_its_name(typed: Run) -> None:
    file = write(
        'inputs = "EXAMPLES/red-circle.png"\n[vqa]\nprompt = "what shape is it?"\n[caption]\nmax-new-tokens = 2'
    )
    assert typed("vqa", "--config", file).rows[0]["answer"] == "circle"
    assert typed("caption", "--config", file).rows[0]["caption"] == "a red"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("max-new-token = 3", "run.toml: caption has no option max-new-token; did you mean max-new-tokens?"),
        ("frobnicate = 3", "run.toml: caption has no option frobnicate"),
        ("debug = true", "run.toml: caption has no option debug"),
        ("limit = ", "run.toml is not TOML"),
        ('limit = "many"', "--limit many is not a whole number"),
        ('dtype = "fp8"', "--dtype fp8 is not one of the choices"),
        ("shard = 3", "--shard 3 is not a part such as 3/16"),
    ],
)
def test_a_faulty_file_is_told_in_two_lines(typed: Run, text: str, told: str) -> None:
    ran = typed("caption", EXAMPLES, "--config", write(text))
    assert (ran.code, ran.out) == (2, "")
    assert told in ran.err and len(ran.err.splitlines()) == 2


def test_a_file_that_is_not_there(typed: Run) -> None:
    ran = typed("caption", EXAMPLES, "--config", "gone.toml")
    assert ran.code == 2 and "cannot read gone.toml: No such file or directory" in ran.err


def test_options_from_a_file_are_options_to_resume(typed: Run) -> None:
    file = write('inputs = "EXAMPLES"\nlimit = 2\nout = "o.jsonl"\nmax-new-tokens = 2\n')
    assert typed("caption", "--config", file).code == 0
    ran = typed("caption", "--config", file, "--resume", "--max-new-tokens", 4)
    assert ran.code == 2 and "max_new_tokens was 2, is 4" in ran.err
