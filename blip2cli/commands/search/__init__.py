"""Search: the images of a feature file that go best with a text or an image. What `blip2 search` does."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

from blip2cli.errors import UsageError
from blip2cli.settings import Job, Kind, Opt

if TYPE_CHECKING:
    from blip2cli.commands.search.pictures import Pictures
    from blip2cli.commands.search.results import Found


@dataclass(frozen=True)
class SearchOptions:
    """What `blip2 search` alone is told."""

    panel = "Search"
    kind: ClassVar[Kind] = "retrieval"
    needs_input: ClassVar[bool] = False
    image: Annotated[
        tuple[str, ...], Opt("An image to search for others like it; may be repeated.", metavar="FILE")
    ] = ()
    top_k: Annotated[int, Opt("Rows for each query.", ("--top-k", "-k"), "K", min=1, max=100_000)] = 10
    rerank: Annotated[
        int | None, Opt("Rank the best N by ITC + ITM, which looks at their images again.", metavar="N", min=1)
    ] = None
    index: Annotated[
        Path | None,
        Opt("Index for many rows, by the extra `search`; built where there is none. Without: exact.", metavar="FILE"),
    ] = None
    images: Annotated[
        tuple[str, ...],
        Opt(
            "Input of embed, to take images from that the rows' names do not lead to; may be repeated.", metavar="INPUT"
        ),
    ] = ()
    image_root: Annotated[
        str | None,
        Opt(
            "Folder of the images; nothing outside is read. [default: here, or else the features' own]",
            metavar="FOLDER",
        ),
    ] = None
    allow_remote: Annotated[bool, Opt("Fetch the images behind URLs, for --rerank and --report.")] = False
    allow_private: Annotated[bool, Opt("With --allow-remote: from this machine and private networks too.")] = False
    report: Annotated[Path | None, Opt("Write the rows as an HTML page too.", metavar="FILE")] = None

    @property
    def outputs(self) -> dict[str, Path | None]:
        """What is written beside the rows, by the option that names it."""
        return {"--report": self.report, "--index": self.index}

    def validate(self) -> None:
        if self.allow_private and not self.allow_remote:
            raise UsageError("--allow-private needs --allow-remote", "Give both, or neither.")
        looks = self.rerank is not None or self.report is not None
        for name, given in (
            ("images", self.images),
            ("image-root", self.image_root),
            ("allow-remote", self.allow_remote),
        ):
            if given and not looks:
                raise UsageError(f"--{name} needs --rerank or --report", "Without them no image of a row is read.")
        if self.rerank is not None and self.image:
            raise UsageError("--rerank does not go with --image", "ITM compares images with texts.")
        if self.rerank is not None and self.rerank < self.top_k:
            raise UsageError(
                f"--rerank {self.rerank} is below --top-k {self.top_k}", f"Give --rerank {self.top_k} or more."
            )


def search(job: Job) -> bool:
    """Search, and write what is found; whether all of it is without errors. Raises Blip2Error.

    The job's first input is the feature file, the others are texts to search for.
    """
    from blip2cli.commands.search.features import open_features
    from blip2cli.commands.search.pictures import Pictures
    from blip2cli.commands.search.results import report_settings, write
    from blip2cli.host.terminal import hush_libraries, show_note
    from blip2cli.outputs import FORMATS
    from blip2cli.outputs.target import check_inputs, check_output, locked_output, target_of

    if not job.input.inputs:
        raise UsageError("no features are given", "Such as blip2 search feats.parquet 'a red circle'.")
    started = time.perf_counter()
    file, *texts = map(str, job.input.inputs)
    options: SearchOptions = job.options
    if not texts and not options.image:
        raise UsageError("no query is given", f"Such as blip2 search {file} 'a red circle', or --image FILE.")
    target = target_of(job.output, FORMATS)
    check_inputs(target, job, [*job.input.inputs, *job.files_of_options])
    check_output(target, job.output, job.task, resumes=False)
    features = open_features(Path(file))
    features.check_model(job.model_name, job.model.revision)
    pictures = Pictures.of(features, options)
    files = (str(file) for part in features.parts for file in part.files)
    check_inputs(target, job, [*files, *pictures.originals.files, *options.image])
    if options.report is not None:
        report_settings(job).check()
    hush_libraries()
    found = _found(job, pictures, texts)
    with locked_output(target, keep=False):
        good = write(job, target, pictures, found)
    if not job.output.quiet:
        queries = f"{len(found)} {'query' if len(found) == 1 else 'queries'}"
        how = f"by {options.index}" if options.index else "exact"
        show_note(f"{queries} over {features.rows:,} rows, {how}, in {time.perf_counter() - started:.1f} s")
    return good


def _found(job: Job, pictures: Pictures, texts: list[str]) -> list[Found]:
    """What is found for each query, best first."""
    from blip2cli.commands.search.exact import best_rows
    from blip2cli.commands.search.index import Index
    from blip2cli.commands.search.queries import Queries
    from blip2cli.commands.search.rerank import rerank
    from blip2cli.commands.search.results import Found

    options: SearchOptions = job.options
    features = pictures.features
    most = max(options.top_k, options.rerank or 0)
    index = Index.of(features, options.index, job.output.quiet, most) if options.index is not None else None
    queries = Queries(job)
    vectors = [*queries.of_texts(texts), *queries.of_images(options.image)]
    if vectors[0].shape[-1] != features.shape[1]:
        raise UsageError(
            f"{features.path} has features of {features.shape[1]} numbers, the model of {vectors[0].shape[-1]}",
            "The checkpoint is another than the one that made them; write them again.",
        )
    hits = best_rows(features, vectors, most) if index is None else index.best_rows(vectors, most)
    names = [*texts, *options.image]
    found = [Found(name, some) for name, some in zip(names, hits, strict=True)]
    return found if options.rerank is None else rerank(queries.model, job, pictures, found)
