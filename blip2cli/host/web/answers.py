"""What an answer holds: a file, a span of one, or an error."""

from __future__ import annotations

import email.utils
import http.client
import re
import time
import zlib
from dataclasses import dataclass

from blip2cli.host.web.faults import NoSpansError, WebError, too_large

CHUNK = 1 << 20
"""Bytes that are read at a time."""

GONE = (404, 410)

BUSY = (408, 425, 429, 500, 502, 503, 504)
"""Status codes that may be temporary."""

CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-\d{1,19}/(\d{1,19})")
"""Of the answer with a span: its start, and the size of the file."""

LONGEST_WAIT = 86_400
"""Seconds: a longer Retry-After counts as this."""


@dataclass(frozen=True)
class Span:
    """Bytes from within a file, and how many the file has."""

    data: bytes
    total: int


def file_of(answer: http.client.HTTPResponse, most: int) -> bytes:
    """The file that an answer holds. Raises WebError where it holds none."""
    if answer.status not in (200, 203):
        raise _refused(answer)
    return _unpacked(_body(answer, most), answer.headers.get("Content-Encoding", ""), most)


def span_of(answer: http.client.HTTPResponse, start: int, stop: int) -> Span:
    """The span that an answer holds. Raises WebError where it holds none, or another."""
    if answer.status in (200, 203, 416):  # an empty file has none
        raise NoSpansError("unreadable", "the server does not support range requests")
    if answer.status != 206:
        raise _refused(answer)
    content_range = CONTENT_RANGE.fullmatch(str(answer.headers.get("Content-Range", "")).strip())
    encoded = answer.headers.get("Content-Encoding", "identity") != "identity"
    if content_range is None or encoded or int(content_range[1]) != start:
        raise NoSpansError("unreadable", "the server sent another range than requested")
    total = int(content_range[2])
    data = _body(answer, stop - start)
    if len(data) != min(stop, total) - start:
        raise WebError("unreadable", "the server sent less than requested", passing=True)
    return Span(data, total)


def _refused(answer: http.client.HTTPResponse) -> WebError:
    """The error for a status code without a file."""
    if answer.status in GONE:
        return WebError("missing", "nothing at that URL")
    wait = _wait_asked(answer) if answer.status in (429, 503) else None
    return WebError("unreadable", f"HTTP {answer.status}", answer.status in BUSY, wait)


def _body(answer: http.client.HTTPResponse, most: int) -> bytes:
    if answer.length is not None and answer.length > most:
        raise too_large(most)
    data = bytearray()
    while piece := answer.read1(CHUNK):
        data += piece
        if len(data) > most:
            raise too_large(most)
    if answer.length:
        raise WebError("unreadable", f"{answer.length:,} bytes are missing", passing=True)
    return bytes(data)


def _unpacked(body: bytes, encoding: str, most: int) -> bytes:
    """The body, decompressed: a server may compress it although it was asked not to."""
    encoding = encoding.strip().lower()
    if encoding in ("", "identity"):
        return body
    if encoding not in ("gzip", "x-gzip", "deflate"):
        raise WebError("unreadable", f"Content-Encoding {encoding[:20]!r}")
    unpacker = zlib.decompressobj(wbits=47)  # gzip or zlib, by its head
    try:
        unpacked = unpacker.decompress(body, most + 1)
    except zlib.error as error:
        raise WebError("unreadable", f"the compressed data are damaged: {error}") from None
    if len(unpacked) > most:
        raise too_large(most)
    if not unpacker.eof:
        raise WebError("unreadable", "the compressed data end early", passing=True)
    return unpacked


def _wait_asked(answer: http.client.HTTPResponse) -> float | None:
    """Seconds to wait by Retry-After, which holds a number or a date; None where the
    header is not valid."""
    value = str(answer.headers.get("Retry-After", "")).strip()[:64]
    if value.isascii() and value.isdigit():
        return float(min(int(value), LONGEST_WAIT))
    try:
        moment = email.utils.parsedate_to_datetime(value)
        return min(max(0.0, moment.timestamp() - time.time()), LONGEST_WAIT)
    except (ValueError, TypeError, IndexError, OverflowError, OSError):
        return None
