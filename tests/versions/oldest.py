"""The oldest versions that pyproject.toml allows, as constraints for pip: `python -m tests.versions.oldest`.

PyTorch is not among them. Its older builds for the CPU are on no index that `make test-oldest` could ask without
fetching gigabytes, so that target keeps the version of the Makefile, and PyTorch's lower bound is not tested.
"""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.version import Version

if sys.version_info >= (3, 11):
    from tomllib import loads
else:
    from tomli import loads

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"

UNTESTED = ("torch",)
"""Packages whose lower bound is not tested."""

EXTRAS = ("s3", "hf", "http", "zst", "heif", "search", "select")
"""Extras that are tested too.

Others need a GPU (int8), a cloud's account (gs) or a cluster (ray), are there in one version only (score), or are for
developers.
"""


def project() -> dict[str, Any]:
    """The table [project] of pyproject.toml."""
    table: dict[str, Any] = loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
    return table


def requirements(extras: Iterable[str] = EXTRAS) -> list[Requirement]:
    """What the package requires here, and its extras do."""
    told = project()
    lines = [*told["dependencies"], *(line for extra in extras for line in told["optional-dependencies"][extra])]
    parsed = [Requirement(line) for line in lines]
    return [requirement for requirement in parsed if requirement.marker is None or requirement.marker.evaluate()]


def lowest(requirement: Requirement) -> str | None:
    """The version of a requirement's lower bound; None without one."""
    bounds = [part.version for part in requirement.specifier if part.operator in (">=", "==", "~=")]
    return max(bounds, key=Version) if bounds else None


def constraints() -> list[str]:
    """A line `name==version` for each package whose lower bound is tested."""
    found: dict[str, str] = {}
    for requirement in requirements():
        version = lowest(requirement)
        if requirement.name in UNTESTED or version is None:
            continue
        found[requirement.name] = max(version, found.get(requirement.name, version), key=Version)
    return [f"{name}=={version}" for name, version in sorted(found.items())]


def without_torch() -> list[str]:
    """The requirements, with their markers, of what runs without PyTorch (which accelerate brings along)."""
    lines: list[str] = project()["dependencies"]
    return [line for line in lines if Requirement(line).name not in ("torch", "accelerate")]


if __name__ == "__main__":
    print(*(without_torch() if "--without-torch" in sys.argv else constraints()), sep="\n")
