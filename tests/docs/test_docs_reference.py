"""The command-line reference is the app's own."""

from blip2cli.cli.reference import reference
from tests.docs.pages import REPOSITORY


def test_the_reference_in_docs_is_what_the_app_says() -> None:
    page = (REPOSITORY / "docs" / "cli.md").read_text(encoding="utf-8")
    assert page == reference(), "stale: run python -m blip2cli.cli.reference > docs/cli.md"
