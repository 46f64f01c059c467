"""The command-line reference is the app's own."""

from blip2cli.cli.reference import reference
from tests.docs.pages import REPOSITORY


def test_the_reference_in_docs_is_what_the_app_says() -> None:
    page = (REPOSITORY / "docs" / "cli.md").read_text(encoding="utf-8")
    assert page == reference(), "stale: run python -m blip2cli.cli.reference > docs/cli.md"


def test_every_heading_and_default_is_one_for_readers() -> None:
    page = reference()
    assert "### None" not in page and "<class" not in page
    assert "| `--references`, `-r` `FILE` |  |" in page
