"""The bundled model `tiny`: where its files lie. The scripts that train and measure it stand beside this file.

Nothing heavy is imported here; the scripts import torch themselves.
"""

from pathlib import Path

MODEL_DIR: Path = Path(__file__).resolve().parent / "model"
"""Folder of the bundled checkpoint, ready for `from_pretrained`."""
