"""Paths of images as manifests have them: what folder they start from, and where they
lead."""

from __future__ import annotations

import os
import posixpath

from blip2cli.host import storage


def joined(root: str, path: str) -> str:
    """A path from a folder on, which may be a URL; the path alone where it is
    absolute."""
    if not storage.is_url(root) or os.path.isabs(path):
        return os.path.join(root, path)
    if not {".", ".."} & set(path.split("/")):
        return f"{root.rstrip('/')}/{path}"
    scheme, _, place = root.partition("://")  # object stores do not resolve dots
    host, _, folder = place.partition("/")
    return f"{scheme}://{host}{posixpath.normpath('/' + f'{folder}/{path}'.lstrip('/'))}"


def root_of(manifest: str) -> str:
    """The folder that a manifest's image paths start from if the user names none."""
    if not storage.is_url(manifest):
        return os.path.dirname(manifest)
    without_query = manifest.partition("?")[0] if manifest.startswith("http") else manifest
    return without_query.rpartition("/")[0]


def leaves(path: str) -> bool:
    """Whether a relative path leads out of the folder that it starts from."""
    return os.path.normpath(path).partition(os.sep)[0] == ".."
