"""--dry-run: what would be read and written."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Typed

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
Run = Callable[..., Typed]


def said(ran: Typed) -> dict[str, str]:
    return dict(line.split(maxsplit=1) for line in ran.out.splitlines())


def test_it_says_what_would_be_done_and_does_nothing(typed: Run) -> None:
    ran = typed("vqa", EXAMPLES, "-p", "what shape is it?", "--out", "o", "--dtype", "fp32", "--dry-run", "--limit", 6)
    assert ran.code == 0 and list(Path().iterdir()) == []
    told = said(ran)
    assert told["input"] == str(EXAMPLES) and told["rows"] == "6 rows"
    assert told["model"].startswith("tiny, in ") and told["precision"] == "fp32 on cpu, batches of auto"
    assert told["memory"].startswith("9.4 MB of weights, ")
    assert told["output"] == "o (parquet in shards of 10,000 rows)"
    assert told["columns"] == "image, question, answer, error"
    assert told["settings"] == "prompt 'what shape is it?'"


def test_it_says_what_it_waits_for(typed: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.conftest.without_loading", str)
    assert typed("caption", EXAMPLES, "--dry-run").err == "Loading tiny\n"
    assert typed("caption", EXAMPLES, "--dry-run", "--quiet").err == ""


def test_rows_that_only_reading_tells_are_counted(typed: Run) -> None:
    assert said(typed("caption", "-", "--dry-run", stdin="a.jpg\nb.jpg\n"))["rows"] == "2 rows"


def test_a_resume_says_what_is_done(typed: Run) -> None:
    typed("caption", EXAMPLES, "--out", "o.jsonl", "--limit", 3)
    before = {path: path.read_bytes() for path in Path().iterdir()}
    ran = typed("caption", EXAMPLES, "--out", "o.jsonl", "--resume", "--dry-run", "--limit", 5)
    assert said(ran)["rows"] == "5 rows, 3 of them done before"
    assert {path: path.read_bytes() for path in Path().iterdir()} == before


def test_what_a_run_would_refuse_is_refused(typed: Run) -> None:
    typed("caption", EXAMPLES, "--out", "o.jsonl", "--limit", 3)
    assert "o.jsonl exists" in typed("caption", EXAMPLES, "--out", "o.jsonl", "--dry-run").err
    ran = typed("caption", EXAMPLES, "--out", "o.jsonl", "--dry-run", "--resume", "--seed", 2)
    assert ran.code == 2 and "seed was 0, is 2" in ran.err


def test_a_checkpoint_that_is_not_here_is_not_fetched(typed: Run) -> None:
    ran = typed("caption", EXAMPLES, "--model", "nobody/nothing", "--dry-run")
    assert ran.code == 0 and said(ran)["model"] == "nobody/nothing, which would be fetched from the hub"
