"""The bundled models: where their files lie. The scripts that train and measure them stand beside this file.

Nothing heavy is imported here; the scripts import torch themselves.
"""

from pathlib import Path

MODEL_DIR: Path = Path(__file__).resolve().parent / "model"
"""Folder of the bundled model `tiny`, which captions and answers; ready for `from_pretrained`."""

RETRIEVAL_DIR: Path = Path(__file__).resolve().parent / "retrieval"
"""Folder of its counterpart that matches images and texts; retrieval checkpoints are separate on the hub too."""
