"""URLs that may be fetched, also after redirects."""

from __future__ import annotations

import http.client
import string
import urllib.parse

from blip2cli.errors import reason
from blip2cli.host.web.faults import WebError

LONGEST_URL = 16 << 10
"""Characters of the longest URL that is fetched."""

HOST_CHARACTERS = frozenset(string.ascii_letters + string.digits + "-._~%:")
"""What a host consists of once it is encoded: a name or an IP address."""


def parsed(url: str) -> urllib.parse.SplitResult:
    """The URL as it is requested.

    Raises WebError if it is not one that may be fetched.
    """
    if len(url) > LONGEST_URL:
        raise WebError("unsupported", f"a URL of {len(url):,} characters")
    try:
        parts = urllib.parse.urlsplit(url.strip())
        host, port = (parts.hostname or "").encode("idna").decode(), parts.port
        path = urllib.parse.quote(parts.path or "/", safe="%/:@!$&'()*+,;=~[]|")
        query = urllib.parse.quote(parts.query, safe="%/:@!$&'()*+,;=?~[]|")
    except ValueError as error:  # UnicodeError among them
        raise WebError("unsupported", f"the URL is not valid: {reason(error)}") from None
    if parts.scheme not in ("http", "https"):
        raise WebError("unsupported", f"a URL of {parts.scheme[:20]}://")
    if not host or not set(host) <= HOST_CHARACTERS:
        raise WebError("unsupported", "the URL is not valid: it has no valid host")
    if parts.username is not None or parts.password is not None:
        raise WebError("unsupported", "a URL with a user name, which is not supported")
    name = f"[{host}]" if ":" in host else host
    return urllib.parse.SplitResult(parts.scheme, name if port is None else f"{name}:{port}", path, query, "")


def redirected(target: urllib.parse.SplitResult, answer: http.client.HTTPResponse) -> str:
    """The URL that an answer redirects to.

    Raises WebError if the redirect is not followed.
    """
    location = answer.headers.get("Location")
    if not location:
        raise WebError("unreadable", f"HTTP {answer.status} without a target")
    if len(location) > LONGEST_URL:
        raise WebError("unreadable", "redirected to a URL that is too long")
    location = urllib.parse.quote(str(location), safe=string.punctuation, encoding="latin-1", errors="replace")
    try:
        url = urllib.parse.urljoin(target.geturl(), location)
        scheme = urllib.parse.urlsplit(url).scheme
    except ValueError:
        raise WebError("unreadable", "redirected to a URL that is not valid") from None
    if scheme not in ("http", "https"):
        raise WebError("unreadable", f"redirected to {scheme[:20]}:, not followed")
    if target.scheme == "https" and scheme == "http":
        raise WebError("unreadable", "redirected from https to http, not followed")
    return url
