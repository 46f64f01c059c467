"""The notebook is its page."""

import json

from tests.docs.notebook import notebook
from tests.docs.pages import REPOSITORY


def test_the_notebook_is_made_of_its_page() -> None:
    written = (REPOSITORY / "docs" / "notebook.ipynb").read_text(encoding="utf-8")
    assert written == notebook(), "run: python -m tests.docs.notebook > docs/notebook.ipynb"
    cells = json.loads(written)["cells"]
    code = [cell["source"] for cell in cells if cell["cell_type"] == "code"]
    assert len(code) >= 6 and ">>>" not in "".join(code)
    for source in code:
        compile(source, "cell", "exec")
