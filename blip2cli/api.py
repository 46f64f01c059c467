"""The Python API: `Blip2`, whose methods caption, answer, embed, match, classify and search."""

from __future__ import annotations

import csv
import io
import os
import shlex
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from blip2cli.errors import UsageError
from blip2cli.host.stopwatch import Stopwatch
from blip2cli.host.terminal import hush_libraries
from blip2cli.inputs.python_values import images_in, inputs_in, is_name
from blip2cli.model import load_model
from blip2cli.model.checkpoint.find import find_checkpoint
from blip2cli.model.checkpoint.rank import find_ranker
from blip2cli.outputs.layout import Layout, carried_names
from blip2cli.run.feature_input import with_features
from blip2cli.run.nearest import Queries, layout_of_hits, results_of_hits
from blip2cli.run.pipeline import load_for
from blip2cli.run.sources import open_input
from blip2cli.settings import GenerationSettings, InputSettings, Job, Kind, ModelSettings, OutputSettings, TaskOptions
from blip2cli.settings.keywords import check_names, chosen, record_of
from blip2cli.settings.numbers import check_cosine
from blip2cli.tasks import make_task
from blip2cli.tasks.caption import CaptionOptions
from blip2cli.tasks.classify import TEMPERATURE, ClassifyOptions
from blip2cli.tasks.embed import EmbedOptions
from blip2cli.tasks.match import MatchOptions
from blip2cli.tasks.vqa import VqaOptions
from blip2cli.tasks.wide import check_name

Texts = str | Sequence[str] | None


class Blip2:
    """A loaded checkpoint. "tiny" comes in both kinds and loads the other kind when it is needed.

    Every method takes what the command line takes: the name of an image, a folder, a pattern, a manifest, an archive or
    a URL, or a list of them. It also takes what Python has: bytes, open files, Pillow images, arrays and tensors, any
    iterable of these, a DataFrame of pandas or polars, an Arrow table, or a Hugging Face data set. It reads its input
    as it goes, and yields rows in its order: dicts with the columns of the command line. The row of a bad image has an
    `error`.

    Methods also take, by name, the fields of `blip2cli.settings.InputSettings` (such as `image_column`, for tables, or
    `limit`); those that write texts take the fields of `blip2cli.settings.GenerationSettings` (such as `num_beams`).

    Args:
        model: hub id, local folder, or "tiny"; None for Salesforce/blip2-opt-2.7b.
        revision: branch, tag or commit on the hub.
        dtype: auto, fp32, fp16, bf16, int8 or int4.
        device: auto, cpu, cuda, cuda:N or mps.
        device_map: "auto" spreads the model over all CUDA devices, if it does not fit on one.
        batch_size: images encoded together; None chooses.
        workers: processes that read and decode images; None for as many as there are cores.

    Raises:
        blip2cli.errors.Blip2Error: the checkpoint is not available, or not in that precision or on that device.
    """

    def __init__(
        self,
        model: str | None = None,
        *,
        revision: str | None = None,
        dtype: Literal["auto", "fp32", "fp16", "bf16", "int8", "int4"] = "auto",
        device: str = "auto",
        device_map: Literal["auto"] | None = None,
        batch_size: int | None = None,
        workers: int | None = None,
        **others: Any,
    ) -> None:
        hush_libraries()
        check_names("Blip2", others, own=OF_MODEL)
        values = {"revision": revision, "dtype": dtype, "device": device, "device_map": device_map, "workers": workers}
        name = None if model is None else os.fspath(model)
        batch = "auto" if batch_size is None else str(batch_size)
        self.settings = record_of(ModelSettings, {"model": name, "batch_size": batch, **values})
        self.settings.validate()
        checkpoint = find_checkpoint(self.settings)
        if checkpoint.caution:
            warnings.warn(checkpoint.caution, stacklevel=2)
        self.model = load_model(checkpoint, batch_size)
        self._models: dict[Kind, Any] = {self.model.checkpoint.kind: self.model}
        self._ranked: dict[ModelSettings, Any] = {}

    def caption(
        self,
        images: Any,
        prompt: Texts = None,
        num_captions: int = 1,
        rank_by: Literal["itm", "itc"] | None = None,
        also_column: Texts = None,
        explain: bool = False,
        explain_words: bool = False,
        **options: Any,
    ) -> Iterator[dict[str, Any]]:
        """Rows with `caption`, or `captions` (a list) if several are requested.

        With several prompts, there is a row for every image and prompt, which stands in the column `prompt`.

        With `rank_by`, a retrieval checkpoint ranks the captions of an image, and those in the columns `also_column` of
        a table, best first. Other arguments say how: `rank_model` and `rank_revision` (the checkpoint), `keep` (how
        many are kept; with 1, the column is `caption`) and `threshold` (the lowest score of those).

        With `explain`, rows have a `map` of where the model looked, [rows, columns] of patches, from 0 to 1; with
        `explain_words` also the `words` and, one map after the other, `word_maps`.
        """
        own = ("prompt", "num_captions", "rank_by", "also_column", *OF_RANKING, *EXPLAINING)
        check_names("caption", options, InputSettings, GenerationSettings, own=own)
        ranking = {name: options.pop(name) for name in OF_RANKING if name in options}
        also = tuple(_listed(also_column))
        values = {"num_captions": num_captions, "rank_by": rank_by, "also_column": also, **ranking}
        values |= {"explain": explain, "explain_words": explain_words}
        texts = tuple(map(_literal, _listed(prompt)))
        return self._rows("caption", images, record_of(CaptionOptions, {"prompt": texts, **values}), options)

    def answer(
        self,
        images: Any,
        question: Texts | Mapping[str, str] = None,
        template: str | None = None,
        choices: str | Sequence[str] | None = None,
        explain: bool = False,
        explain_words: bool = False,
        **options: Any,
    ) -> Iterator[dict[str, Any]]:
        """Rows with `question` and `answer`, one for every image and question.

        Without `question`, every row of a table has its own, in the column `question`. With a dict, of names and
        questions, there is one row for each image, with a column for each question, as with `--wide`. With `choices`,
        the answer is the most likely of them, with its `probability` and the `probabilities` of all.
        With `explain` and `explain_words`, rows have maps, as those of `caption`.
        """
        own_names = ("question", "template", "choices", *EXPLAINING)
        check_names("answer", options, InputSettings, GenerationSettings, own=own_names)
        wide = isinstance(question, Mapping)
        texts = [*map(_literal, _listed([*question.values()] if isinstance(question, Mapping) else question))]
        if isinstance(question, Mapping):
            for name in question:
                check_name(str(name), "is_red")
            texts = [f"{name}={text}" for name, text in zip(question, texts, strict=True)]
        quoted = None if choices is None else _quoted(choices)
        explaining = {"explain": explain, "explain_words": explain_words}
        values = {"prompt": tuple(texts), "wide": wide, "template": template, "choices": quoted, **explaining}
        return self._rows("vqa", images, record_of(VqaOptions, values), options)

    vqa = answer
    """`answer`, by the name of the command."""

    def embed(
        self,
        images: Any,
        features: Literal["qformer", "vision", "itc"] = "qformer",
        pool: Literal["none", "mean"] | None = None,
        store: Literal["fp32", "fp16"] = "fp32",
        **options: Any,
    ) -> Iterator[dict[str, Any]]:
        """Rows with `features`, a NumPy array: [num_query_tokens, width], or [width] for vision or pooled ones."""
        check_names("embed", options, InputSettings, own=("features", "pool", "store"))
        own = record_of(EmbedOptions, {"features": features, "pool": pool, "store": store})
        return self._rows("embed", images, own, options)

    def match(
        self,
        images: Any,
        text: Texts = None,
        scores: Literal["both", "itc", "itm"] = "both",
        explain: bool = False,
        explain_words: bool = False,
        **options: Any,
    ) -> Iterator[dict[str, Any]]:
        """Rows with `text`, `itc` and `itm`, one for every image and text; for retrieval checkpoints.

        Without `text`, every row of a table has its own, in the column `text` or `caption`.
        With `explain` and `explain_words`, rows have maps of what ITM looked at, as those of `caption`.
        """
        check_names("match", options, InputSettings, own=("text", "scores", *EXPLAINING))
        texts = tuple(map(_literal, _listed(text)))
        explaining = {"explain": explain, "explain_words": explain_words}
        own = record_of(MatchOptions, {"text": texts, "scores": scores, **explaining})
        return self._rows("match", images, own, options)

    def classify(
        self,
        images: Any,
        classes: Texts,
        template: Texts = None,
        top: int = 1,
        rerank: int | None = None,
        temperature: float = TEMPERATURE,
        **options: Any,
    ) -> Iterator[dict[str, Any]]:
        """Rows with `label`, the class that fits the image best, and its `probability`; for retrieval checkpoints.

        With `top` above 1, also `labels` and `probabilities`, lists of the best classes. With `rerank`, ITM chooses
        among so many of the best classes. A `template` such as "a photo of a {}" has {} for the class; the features of
        several are averaged. Instead of images, files of features that `blip2 embed --features itc` wrote with the same
        model may be given.
        """
        check_names("classify", options, InputSettings, own=("classes", "template", "top", "rerank", "temperature"))
        values = {"class_name": tuple(_listed(classes)), "template": tuple(_listed(template)), "top": top}
        own = record_of(ClassifyOptions, {**values, "rerank": rerank, "temperature": temperature})
        return self._rows("classify", images, own, options)

    def search(
        self,
        features: str | os.PathLike[str],
        query: Texts = None,
        image: Any = None,
        top_k: int = 10,
        **others: Any,
    ) -> Iterator[dict[str, Any]]:
        """Rows of a feature file with `query`, `rank` and `itc`, the best first; for retrieval checkpoints.

        The file is what `blip2 embed --features itc` wrote with the same model. A query is a text, or an image of any
        kind that is read; several may be given. An image file is not found by itself.
        """
        from blip2cli.features.files import open_features

        check_names("search", others, own=("features", "query", "image", "top_k"))
        texts = _listed(query)
        images = () if image is None else images_in(image)
        if not texts and image is None:
            raise UsageError("no query is given", "For example query='a red circle', or image='photo.jpg'.")
        if not isinstance(top_k, int) or isinstance(top_k, bool) or top_k < 1:
            raise UsageError(f"top_k={top_k!r} is not a whole number from 1", "Give the number of rows for each query.")
        if not is_name(features):
            raise UsageError(
                f"search() takes the name of a feature file, not {type(features).__name__}",
                "Write one with: blip2 embed ./photos --features itc --out feats.parquet",
            )
        file = Path(os.fspath(features))
        opened = open_features(file)
        asked = replace(self.settings, model=self.settings.name("retrieval"))
        settings = opened.model_settings(asked, shlex.join(["blip2", "search", str(file)]))
        found = Queries(texts, images).nearest(opened, self._model("retrieval"), settings, top_k)
        layout = layout_of_hits(opened, {})
        return (layout.record(result) for result in results_of_hits(opened, layout, found))

    def _rows(
        self, task_name: str, images: Any, own: TaskOptions, options: Mapping[str, Any]
    ) -> Iterator[dict[str, Any]]:
        inputs = record_of(InputSettings, {**chosen(InputSettings, options), "inputs": inputs_in(images)})
        generation = record_of(GenerationSettings, chosen(GenerationSettings, options))
        model_settings = replace(self.settings, model=self.settings.name(own.kind))
        job = with_features(Job(task_name, own, inputs, OutputSettings(quiet=True), model_settings, generation))
        task = make_task(job)
        source, model = open_input(job, task), self._model(job.kind, job.ranker)
        columns = task.columns(model.checkpoint)
        layout = Layout(carried_names(source.column_names(), columns), columns, source.schema, {})
        results = task.results(model, load_for(model, source.rows(), self.settings), Stopwatch())
        return (layout.record(result) for result in results)

    def _model(self, kind: Kind, ranker: ModelSettings | None = None) -> Any:
        """The model of that kind, with that ranker. Raises CheckpointError if a checkpoint is of the other kind."""
        if kind not in self._models:
            self._models[kind] = load_model(find_checkpoint(self.settings, kind), self.settings.images_at_once)
        model = self._models[kind]
        if ranker is None:
            return model
        if ranker not in self._ranked:
            self._ranked[ranker] = model.ranked_by(find_ranker(ranker, model.checkpoint))
        return self._ranked[ranker]


OF_RANKING = ("rank_model", "rank_revision", "keep", "threshold")
"""The arguments of `caption` about its ranking that it takes by name only."""

EXPLAINING = ("explain", "explain_words")
"""Arguments of the methods that explain."""


def dedup(
    features: Any,
    threshold: float = 0.95,
    keep: Literal["first", "best-score"] = "first",
    score_column: str | None = None,
) -> list[dict[str, Any]]:
    """Rows with their group of near-duplicates, and whether to keep them, as `blip2 dedup --skip-content` writes them.

    Args:
        features: the name of a file or folder that `blip2 embed` wrote, rows of `Blip2.embed`, or an array
            [rows, width] or [rows, tokens, width], whose rows are named by their numbers.
        threshold: the least cosine with the row that is kept.
        keep: which row of a group is kept: the first, or the one with the best score.
        score_column: the column of the scores.

    Returns:
        Dicts with the rows' columns, without the features, and with `group`, `keep`, `duplicate`, `similarity`,
        `kept` (the name of the row that is kept) and `error`.

    Raises:
        blip2cli.errors.UsageError: there are no such features, or no such column; or the threshold is not a cosine.
    """
    from blip2cli.features.files import OF_IMAGES, open_features
    from blip2cli.features.grouped import grouped_rows
    from blip2cli.features.memory import features_in_memory

    check_cosine("threshold", threshold)
    if (keep == "best-score") != (score_column is not None):
        raise UsageError("keep='best-score' and score_column belong together", "Give both, or neither.")
    opened = open_features(Path(features), OF_IMAGES) if is_name(features) else features_in_memory(features)
    return grouped_rows(opened, threshold, score_column)


OF_MODEL = ("model", "revision", "dtype", "device", "device_map", "batch_size", "workers")
"""The arguments of Blip2."""


def _listed(texts: Any) -> list[str]:
    """Texts that may be given as one. Raises UsageError for what is not a text."""
    if texts is None:
        return []
    if isinstance(texts, str):
        return [texts]
    is_list = isinstance(texts, Iterable) and not isinstance(texts, (Mapping, bytes))
    listed = list(texts) if is_list else [texts]
    for text in listed:
        if not isinstance(text, str):
            raise UsageError(f"{text!r} is not a text", "Give a text, or a list of texts.")
    return listed


def _literal(text: str) -> str:
    """A text without columns to fill in."""
    return text.replace("{", "{{").replace("}", "}}")


def _quoted(choices: str | Sequence[str]) -> str:
    """Choices as the command line takes them, which may be given so. Raises UsageError for what is not a text."""
    if isinstance(choices, str):
        return choices
    line = io.StringIO()
    csv.writer(line, lineterminator="", quoting=csv.QUOTE_ALL).writerow(_listed(choices))
    return line.getvalue()
