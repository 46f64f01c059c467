"""Fetches URLs of manifests, which may come from anybody, with limits on size and time.

Web addresses lead to public networks only, see `host/web/`. Those of object stores lead
to the store that the environment names, with its credentials; the manifest cannot choose
an address.
"""

from __future__ import annotations

import errno

from blip2cli.errors import Blip2Error, ImageError, one_line, reason
from blip2cli.host import retries, storage
from blip2cli.host.web.bounds import Bounds
from blip2cli.host.web.deadline import Deadline, TooSlowError
from blip2cli.host.web.exchange import get, repeated
from blip2cli.host.web.faults import WebError
from blip2cli.records import ErrorKind

MAX_BYTES = 256 << 20
"""Largest file that is fetched."""

SECONDS = 20.0
"""Time for one URL, all attempts together."""

WEB = ("http", "https")

STORES = ("s3", "gs", "hf")
"""Schemes of object stores."""


def fetch(url: str, allow_private: bool = False) -> bytes:
    """The bytes behind a URL.

    Raises ImageError, whatever fails, and no other exception.
    """
    scheme = url.partition("://")[0].lower()
    deadline = Deadline.after(SECONDS)
    if scheme in WEB:
        return _from_web(url, Bounds(deadline, MAX_BYTES, allow_private))
    if scheme not in STORES or "::" in url:  # fsspec chains file systems with ::
        raise ImageError("unsupported", f"a URL of {scheme[:20]}://")
    return _from_store(url, deadline)


def _from_web(url: str, bounds: Bounds) -> bytes:
    """A file by http or https.

    Temporary faults are tried again as long as there is time.
    """
    try:
        return repeated(lambda: get(url, bounds), retries.WAITS, bounds.deadline)
    except WebError as error:
        raise ImageError(error.kind, error.detail) from None


def _from_store(url: str, deadline: Deadline) -> bytes:
    """A file of an object store, by its own package, which has no deadline and may raise
    anything."""
    try:
        return deadline.run(lambda: storage.read(_with_lower_scheme(url), MAX_BYTES))
    except FileNotFoundError:
        raise ImageError("missing", "nothing at that URL") from None
    except TooSlowError as error:
        raise ImageError("unreadable", str(error)) from None
    except OSError as error:
        kind: ErrorKind = "too-large" if error.errno == errno.EFBIG else "unreadable"
        raise ImageError(kind, reason(error)) from None
    except Blip2Error as error:
        raise ImageError("unreadable", one_line(f"{error.message}. {error.hint}", 300)) from None
    except Exception as error:
        raise ImageError("unreadable", reason(error, named=True)) from None


def _with_lower_scheme(url: str) -> str:
    scheme, separator, rest = url.partition("://")
    return f"{scheme.lower()}{separator}{rest}"
