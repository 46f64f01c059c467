"""docs/notebook.ipynb, made of the page docs/notebook.md, whose examples are tested.

`python -m tests.docs.notebook > docs/notebook.ipynb` writes it again.
"""

import doctest
import json
import re
from typing import Any

from tests.docs.pages import REPOSITORY

PAGE = REPOSITORY / "docs" / "notebook.md"
EXAMPLES = re.compile(r"```pycon\n(.*?)```\n", re.DOTALL)


def notebook() -> str:
    """The notebook as JSON: a cell for each text between examples, and for each block of examples."""
    pieces = EXAMPLES.split(PAGE.read_text(encoding="utf-8"))
    cells = [_cell(number, piece) for number, piece in enumerate(pieces) if piece.strip()]
    about = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    document = {"cells": cells, "metadata": about, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def _cell(number: int, piece: str) -> dict[str, Any]:
    """A cell; every second piece of the page is a block of examples."""
    cell: dict[str, Any] = {"id": f"cell-{number}", "metadata": {}}
    if number % 2 == 0:
        return {"cell_type": "markdown", **cell, "source": piece.strip()}
    code = "".join(example.source for example in doctest.DocTestParser().get_examples(piece))
    return {"cell_type": "code", **cell, "execution_count": None, "outputs": [], "source": code.rstrip("\n")}


if __name__ == "__main__":
    print(notebook(), end="")
