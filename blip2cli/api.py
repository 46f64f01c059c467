"""The Python API: `Blip2`, whose methods caption, answer, embed and match images lazily."""

from __future__ import annotations

import csv
import io
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal

from blip2cli.host.stopwatch import Stopwatch
from blip2cli.host.terminal import hush_libraries
from blip2cli.inputs.objects import Objects
from blip2cli.model import load_model
from blip2cli.model.checkpoint.find import find_checkpoint
from blip2cli.outputs.layout import Layout
from blip2cli.run.pipeline import load_for
from blip2cli.run.sources import open_input
from blip2cli.settings import GenerationSettings, InputSettings, Job, Kind, ModelSettings, OutputSettings
from blip2cli.tasks import make_task
from blip2cli.tasks.caption import CaptionOptions
from blip2cli.tasks.embed import EmbedOptions
from blip2cli.tasks.match import MatchOptions
from blip2cli.tasks.vqa import VqaOptions


class Blip2:
    """A loaded checkpoint. "tiny" comes in both kinds and loads the other kind when it is needed.

    Every method takes an image or any iterable of images (paths, bytes, Pillow images), reads it as it goes, and
    yields rows in its order: dicts with the columns of the command line. The row of a bad image has an `error`.

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
    ) -> None:
        hush_libraries()
        self.settings = ModelSettings(
            model, revision, dtype, device, device_map=device_map, batch_size=str(batch_size or "auto"), workers=workers
        )
        self.settings.validate()
        checkpoint = find_checkpoint(self.settings)
        if checkpoint.caution:
            warnings.warn(checkpoint.caution, stacklevel=2)
        self.model = load_model(checkpoint, batch_size)
        self._models: dict[Kind, Any] = {self.model.checkpoint.kind: self.model}

    def caption(
        self, images: Iterable[Any], prompt: str | None = None, num_captions: int = 1, **generation: Any
    ) -> Iterator[dict[str, Any]]:
        """Rows with `caption`, or `captions` (a list) if several are requested.

        `generation` are the fields of `blip2cli.settings.GenerationSettings`: max_new_tokens, num_beams and so on.
        """
        return self._rows(
            "caption",
            images,
            CaptionOptions(() if prompt is None else (_literal(prompt),), num_captions=num_captions),
            generation,
        )

    def answer(
        self,
        images: Iterable[Any],
        question: str | Sequence[str],
        template: str | None = None,
        choices: Sequence[str] | None = None,
        **generation: Any,
    ) -> Iterator[dict[str, Any]]:
        """Rows with `question` and `answer`, one for every image and question.

        With `choices`, the answer is the most likely of them, with its `probability` and the `probabilities` of all.
        """
        questions = tuple(map(_literal, (question,) if isinstance(question, str) else question))
        options = VqaOptions(questions, template=template, choices=None if choices is None else _quoted(choices))
        return self._rows("vqa", images, options, generation)

    def embed(
        self,
        images: Iterable[Any],
        features: Literal["qformer", "vision", "itc"] = "qformer",
        pool: Literal["none", "mean"] | None = None,
        store: Literal["fp32", "fp16"] = "fp32",
    ) -> Iterator[dict[str, Any]]:
        """Rows with `features`, a NumPy array: [num_query_tokens, width], or [width] for vision or pooled ones."""
        return self._rows("embed", images, EmbedOptions(features, pool, store), {})

    def match(
        self,
        images: Iterable[Any],
        text: str | Sequence[str],
        scores: Literal["both", "itc", "itm"] = "both",
    ) -> Iterator[dict[str, Any]]:
        """Rows with `text`, `itc` and `itm`, one for every image and text; for retrieval checkpoints."""
        texts = tuple(map(_literal, (text,) if isinstance(text, str) else text))
        return self._rows("match", images, MatchOptions(texts, scores=scores), {})

    def _rows(
        self, task_name: str, images: Iterable[Any], options: Any, generation: dict[str, Any]
    ) -> Iterator[dict[str, Any]]:
        if isinstance(images, (str, bytes, bytearray, os.PathLike)) or hasattr(images, "convert"):
            images = (images,)
        settings = GenerationSettings(**generation)
        job = Job(task_name, options, InputSettings((Objects(images),)), OutputSettings(), self.settings, settings)
        task = make_task(job)
        source, model = open_input(job, task), self._model(job.kind)
        layout = Layout({}, task.columns(model.checkpoint), source.schema, {})
        results = task.results(model, load_for(model, source.rows(), self.settings), Stopwatch())
        return (layout.record(result) for result in results)

    def _model(self, kind: Kind) -> Any:
        """The model of that kind. Raises CheckpointError if the checkpoint is of the other kind."""
        if kind not in self._models:
            self._models[kind] = load_model(find_checkpoint(self.settings, kind), self.settings.images_at_once)
        return self._models[kind]


def _literal(text: str) -> str:
    """A text without columns to fill in."""
    return text.replace("{", "{{").replace("}", "}}")


def _quoted(choices: Sequence[str]) -> str:
    """Choices as the command line takes them."""
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(choices)
    return line.getvalue()
