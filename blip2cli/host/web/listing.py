"""Files that the pages of a web server link to, as of a folder.

Limited in time, in pages and in their sizes.
"""

from __future__ import annotations

import errno
import glob
import html
import re
import urllib.parse
from collections.abc import Iterator
from fnmatch import fnmatchcase

from blip2cli.host import retries
from blip2cli.host.web.bounds import Bounds
from blip2cli.host.web.deadline import Deadline
from blip2cli.host.web.exchange import get, repeated
from blip2cli.host.web.files import as_os_error

SECONDS = 120.0
"""Time for all pages."""

MOST_PAGE = 16 << 20
"""Bytes of the largest page that is read."""

MOST_LINKS = 1_000_000
"""Links that are followed or listed."""

LINK = re.compile(r"""<a\s[^<>]*?href\s*=\s*["']?([^"'<>\s]+)""", re.IGNORECASE)


def files_below(url: str, levels: int | None = None) -> list[str]:
    """The URLs of the files that are listed below a folder, sorted; down to `levels`
    levels if that is given.

    Links to other places and links with a query are left out; one that ends in a slash is
    a folder. Raises OSError.
    """
    root = url.partition("?")[0].partition("#")[0].rstrip("/") + "/"
    deadline = Deadline.after(SECONDS)
    pages, known_pages, files = [root], {root}, []
    while pages:
        page = pages.pop()
        for link in _links(page, deadline):
            if link in known_pages or not link.startswith(root):
                continue
            known_pages.add(link)
            if not link.endswith("/"):
                files.append(link)
            elif levels is None or link[len(root) :].count("/") < levels:
                pages.append(link)
        if len(known_pages) > MOST_LINKS:
            raise OSError(errno.EFBIG, f"more than {MOST_LINKS:,} links")
    return sorted(files)


def files_matching(pattern: str) -> list[str]:
    """The URLs of listed files that a pattern matches, sorted: * and [...] within a name,
    ** for any folders.

    Raises OSError.
    """
    parts = pattern.split("/")
    first = next((number for number, part in enumerate(parts) if glob.has_magic(part)), len(parts) - 1)
    root, patterns = "/".join(parts[:first]), parts[first:]
    levels = None if "**" in patterns else len(patterns)
    start = len(root) + 1
    return [url for url in files_below(root, levels) if _matches(url[start:].split("/"), patterns)]


def _links(page: str, deadline: Deadline) -> Iterator[str]:
    """The URLs that a page links to."""
    bounds = Bounds(deadline, MOST_PAGE, allow_private=True)
    text = as_os_error(lambda: repeated(lambda: get(page, bounds), retries.WAITS, deadline)).decode("utf-8", "replace")
    for match in LINK.finditer(text):
        try:
            link = urllib.parse.urlsplit(urllib.parse.urljoin(page, html.unescape(match[1])))
        except ValueError:
            continue
        if not link.query:
            yield link._replace(fragment="").geturl()


def _matches(names: list[str], patterns: list[str]) -> bool:
    if not patterns or not names:
        return not patterns and not names
    if patterns[0] == "**":
        return _matches(names, patterns[1:]) or _matches(names[1:], patterns) or (len(patterns) == 1)
    return fnmatchcase(names[0], patterns[0]) and _matches(names[1:], patterns[1:])
