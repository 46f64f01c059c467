"""blip2 score."""

from __future__ import annotations

from blip2cli.cli.options import command_of
from blip2cli.commands.score.options import ScoreSettings


@command_of(ScoreSettings, interrupted="No figures were written.")
def score(settings: ScoreSettings) -> None:
    """Score results against references: VQA accuracy, CIDEr, BLEU, accuracy of classes and others.

    [bold]blip2 score answers.jsonl --references v2_mscoco_val2014_annotations.json[/bold]
    """
    from blip2cli.commands.score import score as measure_and_write

    measure_and_write(settings)
