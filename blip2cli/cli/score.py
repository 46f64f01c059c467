"""blip2 score."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def score(
    results: Annotated[
        list[str],
        typer.Argument(
            metavar="RESULTS...", help="Results of caption or vqa: files, or a folder of shards.", show_default=False
        ),
    ],
    references: Annotated[
        list[str],
        typer.Option(
            "--references",
            "-r",
            metavar="FILE",
            help="References written by people: COCO, VQAv2, OK-VQA or GQA JSON, or a table; may be repeated.",
            show_default=False,
        ),
    ],
    column: Annotated[
        str | None,
        typer.Option(metavar="NAME", help=r"Column of the results to score. \[default: answer, caption(s) or text]"),
    ] = None,
    reference_column: Annotated[
        str | None,
        typer.Option(metavar="NAME", help=r"Column of the references. \[default: answer(s) or caption(s)]"),
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option(metavar="A,B,...", help=r"Metrics to compute (see docs/score.md). \[default: all that apply]"),
    ] = None,
    by: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help=r"Break the figures down by this column; may be repeated. \[default: answer_type]"
        ),
    ] = None,
    partial: Annotated[bool, typer.Option("--partial", help="Leave out references without a result.")] = False,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE", help="Write the figures to this file as JSON.")
    ] = None,
    per_row: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write each row's own figures to this file as JSON lines.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace these files if they exist.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks, and messages for developers.")] = False,
) -> None:
    """Score results against references: VQA accuracy, CIDEr, BLEU and others.

    [bold]blip2 score answers.jsonl --references v2_mscoco_val2014_annotations.json[/bold]
    """
    from blip2cli.cli.failures import reported

    with reported(debug, "No figures were written."):
        from blip2cli.commands.score import ScoreSettings, score

        names = tuple(name.strip() for name in metrics.split(",") if name.strip()) if metrics else ()
        score(
            ScoreSettings(
                tuple(results), tuple(references), column, reference_column, names or None, tuple(by or ()),
                partial, out, per_row, overwrite,
            )
        )  # fmt: skip
