"""--update: rows of a grown input that the output does not have yet are added to it, each once."""

import json
import shutil
from array import array
from collections.abc import Callable
from pathlib import Path

import pytest

from blip2cli.inputs import ColumnChoice, open_source
from blip2cli.outputs import FORMATS
from blip2cli.outputs.commits import Commit
from blip2cli.outputs.journal import Journal
from blip2cli.run.update import KnownRows
from tests.conftest import Typed
from tests.outputs.kept import files
from tests.outputs.registry import CASES, IMAGES, command, out_of, write_manifest

Run = Callable[..., Typed]
OUTPUTS = [("o.jsonl",), ("o.csv.gz",), ("o.parquet",), ("out", "--shard-size", 3)]
IDS = {"ids": lambda output: "-".join(map(str, output))}
BEFORE, GROWN = (0, 3, 5), (6, 0, 1, 2, 3, 7, 5, 8)
"""Numbers of a manifest's rows, before and after it grew; the second row of each has no image."""


def write(numbers: tuple[int, ...], path: str = "m.jsonl", **more: object) -> None:
    lines = []
    for number in numbers:
        name = f"{number}.png"
        if number not in (3, 1):
            shutil.copy(IMAGES[number % len(IMAGES)], name)
        lines.append(json.dumps({"image": name, "id": number, **more}))
    Path(path).write_text("\n".join(lines) + "\n")


def caption(output: tuple[object, ...], *more: object) -> list[object]:
    return ["caption", "m.jsonl", "--out", *output, "--dtype", "fp32", "--workers", 0, "--batch-size", 1, *more]


def contents(out: Path) -> list[dict]:
    """The rows of an output of any kind, empty cells of CSV as None."""
    parts = open_source([str(out)], ColumnChoice(image="image")).parts
    records = [record for part in parts for record in part.records()]
    return [{name: None if value == "" else value for name, value in record.items()} for record in records if record]


def names(output: tuple[object, ...]) -> list[str]:
    return [row["image"] for row in contents(Path(str(output[0])))]


@pytest.mark.parametrize("output", OUTPUTS, **IDS)
def test_rows_that_came_in_the_middle_are_added_behind(typed: Run, output: tuple[object, ...]) -> None:
    write(BEFORE)
    assert typed(*caption(output)).code == 3
    earlier = contents(Path(str(output[0])))
    write(GROWN)
    refused = typed(*caption(output), "--resume")
    assert refused.code == 2 and "--update to add the rows" in refused.err
    ran = typed(*caption(output), "--update", "--summary", "s.json")
    assert (
        ran.err.startswith("5 rows to ") and ", 3 of the input already there (1 with errors), 1 with errors" in ran.err
    )
    rows = contents(Path(str(output[0])))
    assert rows[:3] == earlier
    assert names(output) == [f"{number}.png" for number in (*BEFORE, 6, 1, 2, 7, 8)]
    assert [row["error"] is None for row in rows] == [True, False, True, True, False, True, True, True]
    assert json.loads(Path("s.json").read_text())["already_there"] == 3
    again = typed(*caption(output), "--update")
    assert again.code == 3 and again.err.startswith("0 rows to ") and ", 8 of the input already there" in again.err
    assert f"\n  nothing new: {output[0]} has all rows of the input already\n" in again.err
    assert again.err.endswith("2 rows there have errors; --update --retry-errors computes them again\n")
    assert contents(Path(str(output[0]))) == rows


@pytest.mark.parametrize("behind", [False, True])
@pytest.mark.parametrize("output", OUTPUTS, **IDS)
def test_an_update_that_is_stopped_and_typed_again_has_each_row_once(
    typed: Run, monkeypatch: pytest.MonkeyPatch, output: tuple[object, ...], behind: bool
) -> None:
    write(BEFORE)
    assert typed(*caption(output)).code == 3
    write(GROWN)
    add, commits = Journal.add, iter(range(10**6))

    def add_and_fail(self: Journal, commit: Commit) -> None:
        fails = next(commits) % 2 == 1
        if behind or not fails:
            add(self, commit)
        if fails:
            raise OSError("the disk is full")

    monkeypatch.setattr(Journal, "add", add_and_fail)
    codes = [typed(*caption(output, "--commit-every", 0), "--update").code for _ in range(2)]
    assert codes[0] == 1, "it was stopped"
    monkeypatch.setattr(Journal, "add", add)
    assert typed(*caption(output), "--update").code == 3
    assert sorted(names(output)) == [f"{number}.png" for number in sorted(GROWN)]
    assert names(output)[:3] == [f"{number}.png" for number in BEFORE]


@pytest.mark.parametrize("case", CASES)
def test_every_format_updates_or_says_what_to_do_instead(typed: Run, case: str) -> None:
    known = FORMATS[case.partition("-")[0]]
    write_manifest(3)
    words = [word for word in command(case) if word not in ("--existing", "append")]
    assert typed(*words).code == 3
    before = files(out_of(case))
    rest = Path("m.jsonl").read_text().splitlines()
    write_manifest(5)
    grown = Path("m.jsonl").read_text().splitlines()
    Path("m.jsonl").write_text("\n".join([*grown[3:], *rest]) + "\n")
    ran = typed(*words, "--update", "--summary", "s.json")
    if known.no_update:
        assert (ran.code, ran.err) == (2, f"blip2: --update is not for --format {case}\n       {known.no_update}\n")
        assert files(out_of(case)) == before
        return
    summary = json.loads(Path("s.json").read_text())
    if known.has_journal:
        assert ran.code == 3 and (summary["images"], summary["already_there"]) == (2, 3)
    else:
        assert len(list(Path("o").rglob("*.txt"))) == 3, "of the new images, the second is the first one again"


RETRIED = [case for case in CASES if not FORMATS[case.partition("-")[0]].no_retry]


@pytest.mark.parametrize("case", RETRIED)
def test_errors_of_every_format_that_can_be_read_back_are_retried(typed: Run, case: str) -> None:
    write_manifest(4)
    assert typed(*command(case)).code == 3
    before = files(out_of(case))
    shutil.copy(IMAGES[0], "gone.png")
    again = "--resume" if FORMATS[case.partition("-")[0]].no_update else "--update"
    ran = typed(*command(case), again, "--retry-errors")
    assert ran.code == 0 and files(out_of(case)) != before


@pytest.mark.parametrize("output", OUTPUTS, **IDS)
def test_error_rows_count_as_there_until_they_are_retried(typed: Run, output: tuple[object, ...]) -> None:
    write(BEFORE)
    assert typed(*caption(output)).code == 3
    write(GROWN)
    assert typed(*caption(output), "--update").code == 3
    whole = [(row["image"], row["error"]) for row in contents(Path(str(output[0])))]
    shutil.copy(IMAGES[0], "1.png")
    shutil.copy(IMAGES[0], "3.png")
    write((*GROWN, 9))
    refused = typed(*caption(output), "--resume", "--retry-errors")
    assert refused.code == 2 and "--update --retry-errors" in refused.err, "rows stand elsewhere than in the input"
    ran = typed(*caption(output), "--update", "--retry-errors")
    assert ran.code == 0 and ran.err.startswith("2 rows were computed again, 0 still with errors\n1 row to ")
    rows = contents(Path(str(output[0])))
    assert [row["image"] for row in rows] == [*(name for name, _ in whole), "9.png"]
    assert all(row["caption"] and row["error"] is None for row in rows)
    assert [str(row["id"]) for row in rows] == [row["image"].removesuffix(".png") for row in rows]


def test_a_retry_of_a_changed_input_does_not_mix_up_rows(typed: Run) -> None:
    write(BEFORE)
    assert typed(*caption(("o.jsonl",))).code == 3
    before = Path("o.jsonl").read_bytes()
    write(GROWN)
    assert typed(*caption(("o.jsonl",)), "--resume", "--retry-errors").code == 2
    assert Path("o.jsonl").read_bytes() == before


def test_a_retry_says_which_row_is_no_longer_in_the_input(typed: Run) -> None:
    write(BEFORE)
    assert typed(*caption(("o.jsonl",))).code == 3
    write((3, 5, 6))
    ran = typed(*caption(("o.jsonl",)), "--update", "--retry-errors")
    assert ran.code == 2 and "0.png is in the output, and no longer in the input" in ran.err
    assert typed(*caption(("o.jsonl",)), "--update").err.startswith("1 row to o.jsonl, 2 of the input already there")


def test_several_questions_of_an_image_are_one_row_of_the_input(typed: Run) -> None:
    words = ["vqa", "m.jsonl", "-p", "what shape is it?", "-p", "is it red?", "--out", "o.csv", "--workers", 0]
    write((0, 2))
    assert typed(*words).code == 0
    write((0, 4, 2, 2))
    assert ", 2 of the input already there" in typed(*words, "--update").err
    assert names(("o.csv",)) == [f"{n}.png" for n in (0, 0, 2, 2, 4, 4, 2, 2)], (
        "an image that is named twice is two rows"
    )
    assert typed(*words, "--update").err.startswith("0 rows to ")


def test_rows_with_questions_of_their_own_are_told_apart_by_them(typed: Run) -> None:
    def ask(*asked: str) -> None:
        Path("m.jsonl").write_text("".join(json.dumps({"image": IMAGES[0], "question": text}) + "\n" for text in asked))

    words = ["vqa", "m.jsonl", "--out", "o.parquet", "--workers", 0]
    ask("is it red?", "is it blue?")
    assert typed(*words).code == 0
    ask("is it green?", "is it red?", "is it blue?", "is it red?")
    assert typed(*words, "--update").err.startswith("2 rows to o.parquet, 2 of the input already there")
    asked = [row["question"] for row in contents(Path("o.parquet"))]
    assert asked == ["is it red?", "is it blue?", "is it green?", "is it red?"]


def test_prompts_from_a_column_tell_rows_apart(typed: Run) -> None:
    def ask(*asked: object) -> None:
        Path("m.jsonl").write_text("".join(json.dumps({"image": IMAGES[0], "p": text}) + "\n" for text in asked))

    words = ["caption", "m.jsonl", "--prompt-column", "p", "--out", "o.csv", "--workers", 0]
    ask("a", None)
    assert typed(*words).code == 3
    ask("the", "a", None)
    assert typed(*words, "--update").err.startswith("1 row to o.csv, 2 of the input already there")


def test_images_with_text_files_are_skipped(typed: Run) -> None:
    Path("photos").mkdir()
    for number in (1, 3):
        shutil.copy(IMAGES[number], f"photos/{number}.png")
    assert typed("caption", "photos", "--format", "sidecar").code == 0
    shutil.copy(IMAGES[2], "photos/2.png")
    assert len(typed("caption", "photos", "--format", "sidecar", "--update").rows) == 1
    assert {path.name for path in Path("photos").glob("*.txt")} == {"1.txt", "2.txt", "3.txt"}
    refused = typed("caption", "photos", "--format", "sidecar", "--update", "--existing", "overwrite")
    assert refused.code == 2 and "--update cannot be used with --existing overwrite" in refused.err


@pytest.mark.usefixtures("quick_start")
def test_replicas_and_a_list_on_stdin_take_part(typed: Run) -> None:
    write((0, 2))
    assert typed("caption", "-", "--out", "o.jsonl", "--workers", 0, stdin="0.png\n2.png\n").code == 0
    write((0, 4, 2, 5))
    words = ["caption", "-", "--out", "o.jsonl", "--workers", 0, "--update", "--devices", "cpu:1"]
    assert typed(*words, stdin="4.png\n0.png\n5.png\n2.png\n").code == 0
    assert names(("o.jsonl",)) == ["0.png", "2.png", "4.png", "5.png"]


def test_options_that_do_not_go_with_it_are_refused_in_two_lines(typed: Run) -> None:
    write((0,))
    for words, message in (
        (("--out", "o.jsonl", "--overwrite"), "both --update and --overwrite are given"),
        (("--out", "o.jsonl", "--shard", "1/2"), "--update cannot be used with --shard"),
        ((), "--update needs --out"),
        (("--out", "o", "--engine", "ray"), "--update cannot be used with --engine ray"),
    ):
        ran = typed("caption", "m.jsonl", "--update", *words)
        assert ran.code == 2 and ran.err.startswith(f"blip2: {message}\n") and ran.err.count("\n") == 2


def test_an_input_whose_names_are_all_others_is_warned_of(typed: Run) -> None:
    Path("photos").mkdir()
    shutil.copy(IMAGES[0], "photos/a.png")
    words = ["--out", "o.jsonl", "--update"]
    assert "warning" not in typed("caption", "photos", *words).err
    shutil.copy(IMAGES[0], "photos/b.png")
    assert "warning" not in typed("caption", "photos", *words).err
    warned = "warning: the input has none of the 2 rows that o.jsonl had before; rows are compared by name"
    assert warned in " ".join(typed("caption", "./photos", *words).err.split())


def test_an_output_that_is_not_there_is_started(typed: Run) -> None:
    write((0, 2))
    assert typed(*caption(("o.jsonl",)), "--update").err.startswith("2 rows to o.jsonl, 0 with errors")
    shown = typed(*caption(("o.jsonl",)), "--update", "--dry-run").out
    assert "2 rows; those that are not among the 2 of the output are added" in shown


def test_equal_keys_count_as_often_as_they_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    known = KnownRows([("a", None), ("b", "x"), ("a", None), ("b", "y")])
    taken = [known.take(key) for key in (("b", "y"), ("a", None), ("b", None), ("a", None), ("a", None), ("b", "x"))]
    assert taken == [3, 0, None, 2, None, 1]
    assert KnownRows([]).take(("a", None)) is None


def test_keys_whose_hashes_begin_alike_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("blip2cli.run.update._digest", lambda key: array("Q", [7, int(key[0])]).tobytes())
    known = KnownRows([(str(number), None) for number in (5, 1, 3, 5)])
    assert [known.take((str(number), None)) for number in (3, 5, 2, 5, 5, 1, 9)] == [2, 0, None, 3, None, 1, None]


@pytest.mark.parametrize("out", ["o.jsonl", "o.csv", "o.tsv", "o.parquet"])
def test_rows_of_any_name_are_found_again(typed: Run, out: str) -> None:
    odd = (" a", "a ", "a,b", 'a"b', "a\nb", "a\rb", "a\tb", "'", "=a", "#1", "a\u2028b", "e\u0301", "\u00e9", "a\\b")
    Path("m.jsonl").write_text("".join(json.dumps({"image": f"{name}.png", "id": name}) + "\n" for name in odd))
    assert typed(*caption((out,))).code == 3
    assert [(row["image"], row["id"]) for row in contents(Path(out))] == [(f"{name}.png", name) for name in odd]
    ran = typed(*caption((out,)), "--update")
    assert f"0 rows to {out}, {len(odd)} of the input already there" in ran.err
