"""--retry-errors: error rows are computed again and stand where they stood; the rest stays as it was."""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from blip2cli.outputs import replacement
from blip2cli.run import retry
from blip2cli.tasks.embed import EmbedTask
from tests.chaos.chaos import EXAMPLES, contents, write_manifest
from tests.conftest import Typed

Run = Callable[..., Typed]
OUTPUTS = [("o.jsonl",), ("o.parquet",), ("out", "--shard-size", 5), ("out", "--format", "jsonl", "--shard-size", 5)]
TASKS = [
    ("caption",),
    ("vqa", "-p", "what shape is it?", "-p", "is it red?"),
    ("embed", "--features", "vision"),
    ("classify", "--class", "a circle", "--class", "a triangle", "--top", "2"),
]


def command(task: tuple[str, ...], output: tuple[object, ...]) -> list[object]:
    return [task[0], "m.jsonl", *task[1:], "--out", *output, "--workers", 0]


def heal(*numbers: int) -> None:
    """Put images where there were none."""
    for number in numbers:
        shutil.copy(EXAMPLES / "red-circle.png", f"gone{number}.png")


@pytest.mark.parametrize("output", OUTPUTS, ids=lambda output: "-".join(map(str, output)))
@pytest.mark.parametrize("task", TASKS, ids=lambda task: task[0])
def test_retried_rows_are_as_if_they_had_been_good_at_once(
    typed: Run, task: tuple[str, ...], output: tuple[object, ...]
) -> None:
    write_manifest(Path("m.jsonl"), 20)
    words = command(task, output)
    assert typed(*words).code == 3
    heal(3, 17)
    ran = typed(*words, "--resume", "--retry-errors")
    assert ran.code == 3, "row 10 is still bad"
    left = 2 if task[0] == "vqa" else 1
    assert ran.err.startswith(f"3 rows were computed again, {left} still with errors\n0 rows to ")
    assert typed(*command(task, (f"whole-{output[0]}", *output[1:]))).code == 3
    assert contents(Path(str(output[0]))) == contents(Path(f"whole-{output[0]}"))
    heal(10)
    assert typed(*words, "--retry-errors").code == 0
    left = {path.name for path in Path().iterdir() if not path.name.startswith(("gone", "whole", ".whole"))}
    assert left == {"m.jsonl", str(output[0]), f".{output[0]}.blip2"}


@pytest.mark.parametrize("name", ["o.jsonl", "o.parquet", "out"])
def test_good_rows_are_not_computed_again_and_added_rows_are_done(
    typed: Run, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    write_manifest(Path("m.jsonl"), 10)
    words = command(("caption",), (name,))
    assert typed(*words).code == 3
    write_manifest(Path("rest.jsonl"), 20)
    Path("m.jsonl").write_text(Path("rest.jsonl").read_text())
    heal(3, 10)
    ran = typed(*words, "--resume", "--retry-errors", "--summary", "s.json")
    assert ran.code == 3
    summary = json.loads(Path("s.json").read_text())
    assert (summary["resumed_at"], summary["images"], summary["errors_before"], summary["errors"]) == (10, 10, 0, 1)
    assert typed(*command(("caption",), (f"whole-{name}",))).code == 3
    assert contents(Path(name)) == contents(Path(f"whole-{name}"))


@pytest.mark.parametrize("name", ["o.jsonl", "o.parquet", "out"])
@pytest.mark.parametrize("moment", ["before", "between"])
def test_a_retry_stopped_while_it_takes_its_place_is_finished_by_resume(
    typed: Run, monkeypatch: pytest.MonkeyPatch, name: str, moment: str
) -> None:
    write_manifest(Path("m.jsonl"), 10)
    words = command(("caption",), (name,))
    assert typed(*words).code == 3
    heal(3)

    def stop(*paths: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        room, function = (retry, "swap_in") if moment == "before" else (replacement, "adopt")
        patched.setattr(room, function, stop)
        assert typed(*words, "--resume", "--retry-errors").code == 130
    assert typed(*words, "--resume").code == 0
    assert typed(*command(("caption",), (f"whole-{name}",))).code == 0
    assert contents(Path(name)) == contents(Path(f"whole-{name}"))


def test_without_errors_nothing_is_done(typed: Run) -> None:
    words = ["caption", EXAMPLES / "red-circle.png", "--out", "o.jsonl"]
    assert typed(*words).code == 0
    before = Path("o.jsonl").stat().st_ino
    assert typed(*words, "--resume", "--retry-errors").code == 0
    assert Path("o.jsonl").stat().st_ino == before


@pytest.mark.parametrize("name", ["o.jsonl", "o.parquet", "out"])
def test_an_old_retry_does_not_take_the_place_of_a_newer_output(
    typed: Run, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    write_manifest(Path("m.jsonl"), 10)
    words = command(("caption",), (name,))
    assert typed(*words).code == 3
    with monkeypatch.context() as patched:
        patched.setattr(retry, "swap_in", lambda out: None)
        typed(*words, "--resume", "--retry-errors")
    heal(3)
    assert typed(*words, "--overwrite").code == 0
    newer = contents(Path(name))
    assert typed(*words, "--resume").code == 0
    assert contents(Path(name)) == newer


@pytest.mark.parametrize("features", ["text", "itc"])
def test_texts_that_are_kept_are_not_computed_again(typed: Run, monkeypatch: pytest.MonkeyPatch, features: str) -> None:
    write_texts("a red circle", "", "a blue square")
    words = ["embed", "m.jsonl", "--features", features, "--text-column", "text", "--out", "o.jsonl"]
    assert typed(*words).code == 3
    write_texts("a red circle", "a green triangle", "a blue square")
    asked: list[str] = []
    compute = EmbedTask._text_features

    def noting(task: EmbedTask, model: object, texts: Sequence[str]) -> object:
        asked.extend(texts)
        return compute(task, model, texts)

    monkeypatch.setattr(EmbedTask, "_text_features", noting)
    assert typed(*words, "--resume", "--retry-errors").code == 0
    assert asked == ["a green triangle"]
    assert typed(*words[:-1], "whole.jsonl").code == 0
    assert Path("o.jsonl").read_text() == Path("whole.jsonl").read_text()


def write_texts(*texts: str) -> None:
    Path("m.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))


def test_rows_that_are_kept_keep_images_that_came_in_bytes(typed: Run) -> None:
    circle = (EXAMPLES / "red-circle.png").read_bytes()
    words = ["caption", "m.parquet", "--format", "webdataset", "--out", "o", "--workers", 0]
    write_images(circle, b"", circle)
    assert typed(*words).code == 3
    write_images(circle, circle, circle)
    assert typed(*words, "--resume", "--retry-errors").code == 0
    assert typed(*words[:-3], "whole", *words[-2:]).code == 0
    assert Path("o/00000.tar").read_bytes() == Path("whole/00000.tar").read_bytes()


def write_images(*images: bytes) -> None:
    pq.write_table(pa.table({"image": pa.array(images, pa.binary())}), "m.parquet")


def test_results_without_names_are_retried(typed: Run) -> None:
    write_manifest(Path("m.jsonl"), 10)
    words = ["caption", "m.jsonl", "--format", "coco", "--workers", 0, "--out"]
    assert typed(*words, "o.json").code == 3
    heal(3)
    assert typed(*words, "o.json", "--resume", "--retry-errors").code == 0
    assert typed(*words, "whole.json").code == 0
    assert Path("o.json").read_text() == Path("whole.json").read_text()
