"""What all commands that read results refuse as results."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Typed

COMMANDS = [("report",), ("select", "--out", "-"), ("score", "--references", "people.json")]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_results_that_are_not_finished_or_come_from_stdin_are_refused(
    typed: Callable[..., Typed], command: tuple[str, ...]
) -> None:
    Path("people.json").write_text("{}")
    Path(".o.parquet.blip2-parts").mkdir()
    name, *options = command
    unfinished, piped = (typed(name, results, *options) for results in ("o.parquet", "-"))
    assert unfinished.code == piped.code == 2
    assert unfinished.err.startswith("blip2: o.parquet is not finished\n")
    assert piped.err.startswith("blip2: results are not read from stdin\n")
