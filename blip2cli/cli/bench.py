"""blip2 bench."""

from __future__ import annotations

from blip2cli.cli.options import command_of
from blip2cli.commands.bench import BenchSettings


@command_of(BenchSettings, interrupted="The rows above are measured.")
def bench(settings: BenchSettings) -> None:
    """Measure captions a second on this machine, by precision and batch size.

    [bold]blip2 bench --model Salesforce/blip2-opt-2.7b[/bold]
    """
    from blip2cli.host.terminal import loading

    with loading("libraries"):
        from blip2cli.commands.bench.own import measure_and_show

    measure_and_show(settings)
