"""`blip2 score` on labels: accuracy, F1, the best few, and what is confused with what."""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Typed

Run = Callable[..., Typed]

GIVEN = ["cat", "cat", "dog", "bird", "dog", None]
TRUE = ["cat", "dog", "dog", "dog", "cat", "cat"]
"""Of six images; the last result has an error."""

F1 = {"bird": 0.0, "cat": 2 * 1 / (3 + 2), "dog": 2 * 1 / (3 + 2)}
"""2 TP / (true + given): cat is true 3 times and given twice, dog the same, bird is given once."""


def write(name: str, records: list[dict[str, Any]]) -> str:
    Path(name).write_text("".join(json.dumps(record) + "\n" for record in records))
    return name


def results(**more: Any) -> str:
    rows = [
        {"image": f"photos/{at}.jpg", "input_label": true, "label": given, "probability": 0.5, **more}
        | {"error": None if given else "unreadable"}
        for at, (given, true) in enumerate(zip(GIVEN, TRUE, strict=True))
    ]
    return write("results.jsonl", rows)


def truth() -> str:
    lines = ["image,label", *(f"{at}.jpg,{true}" for at, true in enumerate(TRUE))]
    Path("truth.csv").write_text("\n".join(lines))
    return "truth.csv"


@pytest.mark.parametrize("against", ["references", "column"])
def test_labels_are_compared_with_a_table_or_with_a_column_of_their_own(typed: Run, against: str) -> None:
    words = ("--references", truth()) if against == "references" else ("--label-column", "input_label")
    ran = typed("score", results(), *words)
    assert ran.code == 0, ran.err
    scores = json.loads(ran.out)
    assert scores["metrics"] == {"accuracy": 33.33, "macro_f1": round(100 * sum(F1.values()) / 3, 2)}
    assert scores["scored"] == 6 and scores["errors"] == 1
    assert scores["matched_by"] == ("file name" if against == "references" else "column input_label")
    assert scores["classes"]["cat"] == {"true": 3, "given": 2, "precision": 50.0, "recall": 33.33, "f1": 40.0}
    assert scores["classes"]["bird"] == {"true": 0, "given": 1, "precision": 0.0, "recall": None, "f1": 0.0}
    assert scores["confusion_matrix"] == {
        "true": ["bird", "cat", "dog"],
        "given": ["bird", "cat", "dog", None],
        "counts": [[0, 0, 0, 0], [0, 1, 1, 1], [1, 1, 1, 0]],
    }
    assert scores["confused_pairs"] == 4
    assert {(entry["true"], entry["given"], entry["count"]) for entry in scores["most_confused"]} == {
        ("cat", "dog", 1), ("cat", None, 1), ("dog", "bird", 1), ("dog", "cat", 1),
    }  # fmt: skip
    assert "results with an error, counted as wrong: 1" in ran.err


def test_a_blank_text_in_a_list_of_true_labels_is_not_a_label(typed: Run) -> None:
    rows = [{"image": f"{label}.jpg", "label": label, "error": None, "true": ["", "cat"]} for label in ("cat", "dog")]
    Path("blank.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    scores = json.loads(typed("score", "blank.jsonl", "--label-column", "true").out)
    assert scores["metrics"]["accuracy"] == 50.0 and scores["confused_pairs"] == 1
    assert scores["most_confused"] == [{"true": "cat", "given": "dog", "count": 1}]


def test_the_best_few_count_if_the_results_have_them(typed: Run) -> None:
    ran = typed("score", results(labels=["bird", "dog"]), "--references", truth(), "--per-row", "rows.jsonl")
    assert json.loads(ran.out)["metrics"]["top_2_accuracy"] == 50.0  # three of the six are dogs; one row has an error
    first = json.loads(Path("rows.jsonl").read_text().splitlines()[0])
    assert (first["accuracy"], first["macro_f1"], first["top_2_accuracy"]) == (100.0, None, 0.0)
    lacking = typed("score", results(), "--references", "truth.csv", "--metrics", "top_k_accuracy")
    assert lacking.code == 2 and "top_k_accuracy needs the column labels" in lacking.err


def test_of_many_labels_the_most_confused_pairs_are_listed(typed: Run) -> None:
    names = [f"class {at}" for at in range(200)]
    rows = [{"image": f"{at}.jpg", "true": names[at], "label": names[(at + at % 2) % 200]} for at in range(200)]
    rows += [{"image": f"more{at}.jpg", "true": "class 7", "label": "class 9"} for at in range(3)]
    scores = json.loads(typed("score", write("r.jsonl", rows), "--label-column", "true").out)
    assert scores["confusion_matrix"] is None and len(scores["classes"]) == 200 - 1 + 1
    assert scores["most_confused"][0] == {"true": "class 7", "given": "class 9", "count": 3}
    assert scores["confused_pairs"] == 101 and scores["metrics"]["accuracy"] == round(100 * 100 / 203, 2)


def test_a_terminal_shows_the_matrix(typed: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    name = results()
    shown = shown_on_terminal(lambda: typed("score", name, "--label-column", "input_label"), monkeypatch)
    lines = [line.split() for line in re.sub(r"\x1b\[[0-9;]*m", "", shown).splitlines()]
    assert ["bird", "cat", "dog", "(none)"] in lines
    assert ["cat", "0", "1", "1", "1"] in lines and ["dog", "1", "1", "1", "0"] in lines


def shown_on_terminal(run: Callable[[], Typed], monkeypatch: pytest.MonkeyPatch) -> str:
    """What a command prints if stdout is a terminal."""
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    return run().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "no references are given"),
        (("--label-column", "input_label", "-r", "truth.csv"), "--references cannot be used with --label-column"),
        (("--label-column", "animal"), "no result has a label in column animal"),
        (("-r", "others.csv"), "no result has a reference"),
        (("-r", "twice.csv"), "two references for"),
    ],
)
def test_labels_that_cannot_be_scored_are_refused(typed: Run, words: tuple[str, ...], said: str) -> None:
    truth()
    Path("others.csv").write_text("image,label\nz.jpg,cat\n")
    Path("twice.csv").write_text("image,label\n0.jpg,cat\n0.jpg,dog\n")
    ran = typed("score", results(), *words)
    assert ran.code == 2 and said in ran.err and len(ran.err.splitlines()) == 2


def test_labels_with_other_names_are_noticed(typed: Run) -> None:
    ran = typed("score", write("r.jsonl", [{"image": "a.jpg", "true": 3, "label": "cat"}]), "--label-column", "true")
    assert ran.code == 0 and "no true label is among the labels given: '3' is not, and 'cat' is" in ran.err
