"""Renders a page: a template, a style sheet and perhaps a script, filled with data as text, never as markup.

The page's own content security policy allows it no other style and script than these, by their digests, and only
images inside the page or in files on the reader's machine: nothing is loaded from the network.
"""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

from blip2cli import __version__

BROWSER = Path(__file__).parent / "browser"
"""The folder of what all pages have: the frame that their templates extend, and the beginning of their style."""


def rendered(folder: Path, name: str, title: str, script: str = "", **values: Any) -> bytes:
    """A page in UTF-8.

    Args:
        folder: where its template and its style sheet are.
        name: their name, without a suffix.
        title: the page's title.
        script: the text of its script; without one, the page runs none.
        values: what the template shows, escaped.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader((folder, BROWSER)),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    style = "".join(file.read_text(encoding="utf-8") for file in (BROWSER / "shared.css", folder / f"{name}.css"))
    text = environment.get_template(f"{name}.html").render(
        title=title,
        style=Markup(style),
        script=Markup(script),
        policy=policy(style, script),
        version=__version__,
        **values,
    )
    return text.encode("utf-8", "backslashreplace")


def policy(style: str, script: str) -> str:
    """The content security policy of a page with this style and this script, or none."""
    rules = ["default-src 'none'", "img-src data: file:", f"style-src {digest(style)}"]
    rules += ["base-uri 'none'", "form-action 'none'"]
    if script:
        rules += [f"script-src {digest(script)}", "require-trusted-types-for 'script'", "trusted-types 'none'"]
    return "; ".join(rules)


def digest(text: str) -> str:
    """A text's digest in a content security policy."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
