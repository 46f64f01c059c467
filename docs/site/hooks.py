"""What the site has beside the pages of docs/: the changelog."""

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

CHANGELOG = Path(__file__).parents[2] / "CHANGELOG.md"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the changelog, which stands outside docs/."""
    files.append(File.generated(config, "changes.md", abs_src_path=str(CHANGELOG)))
    return files
