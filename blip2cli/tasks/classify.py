"""Classes without training: which of several names fits an image best, by ITC, and by ITM among the best."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from blip2cli.errors import UsageError
from blip2cli.records import Batch, Column, Result, Row, RowError
from blip2cli.settings import Job, Kind, Opt, TaskOptions
from blip2cli.tasks import Needs, Task
from blip2cli.tasks.classes import class_names, class_templates

if TYPE_CHECKING:
    import torch

    from blip2cli.host.stopwatch import Stopwatch
    from blip2cli.model.batches import Failed
    from blip2cli.model.checkpoint.record import Checkpoint
    from blip2cli.model.retrieval import RetrievalModel
    from blip2cli.tasks.class_features import BestClasses, ClassFeatures

TEMPERATURE = 0.07
"""What BLIP-2's training begins with. It is learned, and transformers' checkpoints do not hold what was learned."""


@dataclass(frozen=True)
class ClassifyOptions(TaskOptions):
    """The options of `blip2 classify` alone."""

    panel = "Classes"
    class_name: Annotated[tuple[str, ...], Opt("A class; repeat it for each.", ("--class",), "NAME")] = ()
    classes: Annotated[
        Path | None,
        Opt("File of classes: text with one on each line, or a table (CSV, JSON lines, Parquet).", metavar="FILE"),
    ] = None
    class_column: Annotated[
        str | None,
        Opt("Column of that table with the classes. [default: class, label, name, or the only one]", metavar="NAME"),
    ] = None
    template: Annotated[
        tuple[str, ...],
        Opt(
            "Text with {} for the class, such as 'a photo of a {}'; may be repeated: the features of all are averaged. "
            "[default: the class alone]",
            metavar="TEXT",
        ),
    ] = ()
    top: Annotated[
        int, Opt("With more than 1: also lists of the K most likely classes.", ("--top", "--top-k", "-k"), "K", min=1)
    ] = 1
    rerank: Annotated[
        int | None,
        Opt("Choose among the N best classes by ITM, which runs the Q-Former for each of them.", metavar="N", min=2),
    ] = None
    temperature: Annotated[
        float,
        Opt(
            "What similarities are divided by before the softmax; lower is more certain.",
            metavar="T",
            min=0.001,
            max=100.0,
        ),
    ] = TEMPERATURE

    @property
    def kind(self) -> Kind:
        """The kind of checkpoint that compares images with texts."""
        return "retrieval"

    @property
    def takes_features(self) -> bool:
        """ITC compares features, which may have been computed earlier."""
        return True

    def validate(self) -> None:
        if self.class_column is not None and self.classes is None:
            raise UsageError("--class-column needs --classes", "It names a column of that file.")
        if self.rerank is not None and self.top > self.rerank:
            raise UsageError(
                f"--top {self.top} is more than --rerank {self.rerank}", f"Use --rerank {self.top}, or a smaller --top."
            )


class ClassifyTask(Task):
    """The classify task; columns `label` and `probability`, and with --top also the lists `labels` and
    `probabilities`, best first."""

    several_rows = False
    rows_each = 1
    own_text = None

    def __init__(self, job: Job) -> None:
        self.options = job.options_as(ClassifyOptions)
        self.names = class_names(self.options.class_name, self.options.classes, self.options.class_column)
        self.templates = class_templates(self.options.template)
        if self.options.top > len(self.names):
            raise UsageError(
                f"--top {self.options.top} is more than the {len(self.names)} classes", "Use a smaller number."
            )
        if job.from_features and self.options.rerank is not None:
            raise UsageError(
                "--rerank needs images, and the input holds features", "Give the images, or leave out --rerank."
            )
        self.needs = Needs(images=not job.from_features, features=job.from_features)
        self._encoded: ClassFeatures | None = None

    def check_columns(self, names: Sequence[str], text_column: str | None) -> None:
        """Nothing to check: classes are the same for every row."""

    def columns(self, checkpoint: Checkpoint) -> tuple[Column, ...]:
        best = (Column("label", "string"), Column("probability", "number"))
        lists = (Column("labels", "strings"), Column("probabilities", "numbers"))
        return (*best, *lists) if self.options.top > 1 else best

    def results(self, model: RetrievalModel, batches: Iterator[Batch], watch: Stopwatch) -> Iterator[Result]:
        with watch.phase("encoding"):
            classes = self._classes(model)
        for batch in watch.timed("reading", batches):
            with watch.phase("encoding"):
                rankings = self._rankings(classes, batch)
            for row, ranking in zip(batch.rows, rankings, strict=True):
                yield self._result(row, ranking)

    def _classes(self, model: RetrievalModel) -> ClassFeatures:
        """The features of the classes, computed once for a model."""
        from blip2cli.tasks.class_features import encode_classes

        if self._encoded is None or self._encoded.model is not model:
            self._encoded = encode_classes(model, self.names, self.templates)
        return self._encoded

    def _rankings(self, classes: ClassFeatures, batch: Batch) -> list[BestClasses | Failed]:
        """The best classes of each row, or what is wrong with it."""
        from blip2cli.model.batches import Failed

        images = self._images(classes.model, batch)
        good = [image for image in images if not isinstance(image, Failed)]
        if self.options.rerank is None:
            ranked = classes.ranked(good, self.options.top, self.options.temperature)
        else:
            projected = [image.projected for image in good]
            candidates = classes.ranked(projected, self.options.rerank, self.options.temperature)
            ranked = classes.reranked(good, candidates)
        rankings = iter(ranked)
        return [image if isinstance(image, Failed) else next(rankings) for image in images]

    def _images(self, model: RetrievalModel, batch: Batch) -> list[Any | Failed]:
        """The image of each row: its features for ITC, for ITM encoded as a whole."""
        from blip2cli.model.batches import for_each_row

        if self.needs.features:
            return [self._stored(model, row) for row in batch.rows]
        images: list[Any] = model.image_projections(batch) if self.options.rerank is None else model.see(batch)
        return for_each_row(batch, images)

    def _stored(self, model: RetrievalModel, row: Row) -> torch.Tensor | Failed:
        """The features that a row brings."""
        import numpy as np
        import torch

        from blip2cli.model.batches import Failed

        if row.error is not None or row.features is None:
            return Failed(row.error or RowError("missing", "the row has no features"))
        features = torch.from_numpy(np.array(row.features, np.float32))
        shape, expected = list(features.shape), [model.num_query_tokens, model.model.config.image_text_hidden_size]
        if shape != expected:
            return Failed(RowError("unsupported", f"features of the shape {shape}, the model has {expected}"))
        return features

    def _result(self, row: Row, ranking: BestClasses | Failed) -> Result:
        from blip2cli.model.batches import Failed
        from blip2cli.tasks.generation import short

        several = self.options.top > 1
        row = replace(row, features=None)
        if isinstance(ranking, Failed):
            return Result(row, (None, None, None, None) if several else (None, None), ranking.error)
        labels = [self.names[number] for number, _ in ranking[: self.options.top]]
        shares = [short(share) for _, share in ranking[: self.options.top]]
        best = (labels[0], shares[0])
        return Result(row, (*best, labels, shares) if several else best)
