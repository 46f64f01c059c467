"""blip2 bench."""

from __future__ import annotations

from typing import Annotated

import typer

from blip2cli.job import DEFAULT_MODEL


def bench(
    model: Annotated[
        str, typer.Option("--model", "-m", envvar="BLIP2_MODEL", help="Hub id, local folder, or 'tiny' (bundled).")
    ] = DEFAULT_MODEL,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    dtypes: Annotated[str, typer.Option(help="Precisions to try, with commas; by default those of the device.")] = "",
    batch_sizes: Annotated[str, typer.Option(help="Batch sizes to try, with commas.")] = "1,4,8,16,32,64",
    images: Annotated[int, typer.Option(min=1, help="Generated photographs captioned in each try.")] = 64,
    tokens: Annotated[int, typer.Option(min=1, help="Tokens written for each.")] = 10,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Measure captions a second on this machine, by precision and batch size.

    [bold]blip2 bench --model Salesforce/blip2-opt-2.7b[/bold]
    """
    from blip2cli.cli.failures import reported

    with reported(debug, "The rows above are measured."):
        from blip2cli.bench.own import BenchSettings, measure_and_show

        measure_and_show(BenchSettings(model, device, dtypes, batch_sizes, images, tokens))
