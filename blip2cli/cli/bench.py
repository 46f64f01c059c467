"""blip2 bench."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from blip2cli.commands.bench import BATCH_SIZES, BenchSettings, batch_sizes_named, dtypes_named
from blip2cli.settings import DEFAULT_MODEL, check_device


def bench(
    model: Annotated[
        str,
        typer.Option(
            "--model", "-m", metavar="MODEL", envvar="BLIP2_MODEL", help="Hub id, local folder, or 'tiny' (bundled)."
        ),
    ] = DEFAULT_MODEL,
    device: Annotated[
        str, typer.Option(metavar="DEVICE", parser=check_device, help="auto, cpu, cuda, cuda:N or mps.")
    ] = "auto",
    dtypes: Annotated[
        Any,
        typer.Option(metavar="A,B,...", parser=dtypes_named, help="Precisions to try; by default those of the device."),
    ] = None,
    batch_sizes: Annotated[
        Any,
        typer.Option(
            metavar="N,N,...", parser=batch_sizes_named, help=r"Batch sizes to try. \[default: 1,4,8,16,32,64]"
        ),
    ] = None,
    images: Annotated[
        int, typer.Option(metavar="N", min=1, max=100_000, help="Photographs, generated, to caption in each trial.")
    ] = 64,
    tokens: Annotated[
        int, typer.Option(metavar="N", min=1, max=10_000, help="Tokens to write for each photograph.")
    ] = 10,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks, and messages for developers.")] = False,
) -> None:
    """Measure captions a second on this machine, by precision and batch size.

    [bold]blip2 bench --model Salesforce/blip2-opt-2.7b[/bold]
    """
    from blip2cli.cli.failures import reported

    with reported(debug, "The rows above are measured."):
        from blip2cli.commands.bench.own import measure_and_show

        measure_and_show(BenchSettings(model, device, dtypes, batch_sizes or BATCH_SIZES, images, tokens))
