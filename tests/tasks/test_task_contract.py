"""What every task promises, for all that are registered: columns known before the rows, and rows that hold them."""

from collections.abc import Callable
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blip2cli.host.stopwatch import Stopwatch
from blip2cli.images.decode import Reading
from blip2cli.images.loader import Loading, load
from blip2cli.model import load_model
from blip2cli.model.checkpoint.find import find_checkpoint
from blip2cli.model.checkpoint.rank import find_ranker
from blip2cli.records import Column, Result
from blip2cli.run.sources import open_input
from blip2cli.settings import GenerationSettings, InputSettings, Job, ModelSettings, OutputSettings
from blip2cli.tasks import TASKS, make_task
from blip2cli.tasks.caption import CaptionOptions
from blip2cli.tasks.classify import ClassifyOptions
from blip2cli.tasks.embed import EmbedOptions
from blip2cli.tasks.match import MatchOptions
from blip2cli.tasks.vqa import VqaOptions

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
IMAGES = (EXAMPLES / "red-circle.png", "gone.png", EXAMPLES / "teal-triangle.png")

VARIANTS: dict[str, list[tuple[Any, GenerationSettings]]] = {
    "caption": [
        (CaptionOptions(), GenerationSettings()),
        (CaptionOptions(explain_words=True), GenerationSettings(num_beams=2)),
        (CaptionOptions(("a", "a photo of"), num_captions=2), GenerationSettings(num_beams=2, scores=True)),
        (CaptionOptions(num_captions=3, rank_by="itc"), GenerationSettings(temperature=2.0, scores=True)),
        (CaptionOptions(rank_by="itm", also_column=("alt",)), GenerationSettings()),
        (CaptionOptions(rank_by="itm", also_column=("alt",), keep=1), GenerationSettings()),
    ],
    "vqa": [
        (VqaOptions(("what shape is it?", "is it red?")), GenerationSettings(scores=True)),
        (VqaOptions(("is it red?",), choices="yes,no"), GenerationSettings()),
        (VqaOptions(("what shape is it?", "red=is it red?"), wide=True), GenerationSettings(scores=True)),
        (VqaOptions(("is it red?", "is it blue?"), wide=True, choices="yes,no", explain=True), GenerationSettings()),
    ],
    "embed": [
        (EmbedOptions(), GenerationSettings()),
        (EmbedOptions("vision", store="fp16"), GenerationSettings()),
        (EmbedOptions("itc", text=("a red circle",)), GenerationSettings()),
    ],
    "match": [(MatchOptions(("a red circle", "a dog"), explain_words=True), GenerationSettings())],
    "classify": [
        (ClassifyOptions(("a circle", "a triangle")), GenerationSettings()),
        (ClassifyOptions(("a circle", "a triangle"), top=2, rerank=2), GenerationSettings()),
    ],
}
"""Task → options to try it with."""

KINDS: dict[str, Callable[[Any], bool]] = {
    "string": lambda value: isinstance(value, str),
    "strings": lambda value: isinstance(value, list) and all(isinstance(text, str) for text in value),
    "integer": lambda value: isinstance(value, int),
    "number": lambda value: isinstance(value, float),
    "numbers": lambda value: isinstance(value, list) and all(isinstance(number, float) for number in value),
    "tensor": lambda value: isinstance(value, np.ndarray),
}
"""Kind of column → whether a value is of it."""


def test_every_task_is_tried() -> None:
    assert set(VARIANTS) == set(TASKS), "say in VARIANTS with which options the new task is to be tried"


@pytest.fixture(scope="module")
def loaded() -> dict[str, Any]:
    """Models by the kind of checkpoint."""
    return {}


@pytest.fixture(params=[(task, at) for task, variants in VARIANTS.items() for at in range(len(variants))])
def job(request: pytest.FixtureRequest, tmp_path: Path) -> Job:
    (tmp_path / "m.csv").write_text("image,alt\n" + "".join(f"{image},a shape\n" for image in IMAGES))
    task, at = request.param
    options, generation = VARIANTS[task][at]
    inputs = () if getattr(options, "text", ()) and task == "embed" else (str(tmp_path / "m.csv"),)
    model = ModelSettings("tiny", device="cpu", workers=0, dtype="fp32")
    return Job(task, options, InputSettings(inputs), OutputSettings(), model, generation)


def done(job: Job, loaded: dict[str, Any]) -> tuple[tuple[Column, ...], list[Result], int]:
    """A task's columns, its results, and the number of input rows."""
    task = make_task(job)
    source = open_input(job, task)
    checkpoint = find_checkpoint(job.model, job.kind)
    columns = task.columns(checkpoint)
    if job.kind not in loaded:
        loaded[job.kind] = load_model(checkpoint, 4)
    model = loaded[job.kind]
    if job.ranker is not None:
        if "ranked" not in loaded:
            loaded["ranked"] = model.ranked_by(find_ranker(job.ranker, checkpoint))
        model = loaded["ranked"]
    batches = load(source.rows(), Reading(checkpoint.images.side), 4, Loading(workers=0))
    results = list(task.results(model, batches, Stopwatch()))
    return columns, results, source.count() or 0


def test_a_task_can_be_sent_to_a_replica(job: Job) -> None:
    task = make_task(job)
    received = ForkingPickler.loads(ForkingPickler.dumps(task))
    assert received.needs == task.needs and received.options == task.options


def test_a_run_is_resumed_with_the_same_options_only(job: Job) -> None:
    options = {name: list(value) if isinstance(value, tuple) else value for name, value in vars(job.options).items()}
    fingerprint = job.fingerprint()
    assert {name: fingerprint[name] for name in options if name != "rank_model"} == {
        name: value for name, value in options.items() if name != "rank_model"
    }


def test_the_values_are_of_the_columns_that_were_announced(job: Job, loaded: dict[str, Any]) -> None:
    columns, results, _ = done(job, loaded)
    good = [result for result in results if result.error is None]
    assert good
    for result in good:
        for column, value in zip(columns, result.values, strict=True):
            assert KINDS[column.kind](value), (column, value)
            if column.kind == "tensor":
                assert value.shape == column.shape
                assert value.dtype == {"fp32": np.float32, "fp16": np.float16}[column.dtype]


def test_every_input_row_comes_out_in_order_and_says_where_it_ends(job: Job, loaded: dict[str, Any]) -> None:
    _, results, rows = done(job, loaded)
    last = [result.row.index for result in results if result.last]
    assert last == list(range(rows))
    assert [result.row.index for result in results] == sorted(result.row.index for result in results)


def test_a_row_with_an_error_keeps_its_place_and_has_as_many_values(job: Job, loaded: dict[str, Any]) -> None:
    columns, results, _ = done(job, loaded)
    failed = [result for result in results if result.error is not None]
    assert {result.row.name for result in failed} == ({"gone.png"} if job.input.inputs else set())
    assert all(len(result.values) == len(columns) for result in failed)
