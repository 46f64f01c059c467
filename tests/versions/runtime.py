"""`python -m tests.versions.runtime WORDS...`: blip2 where only what it requires without extras can be imported.

As after `pip install blip2cli` in an empty environment, though more is installed here.
"""

import sys
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from types import ModuleType
from typing import Any, ClassVar

from packaging.requirements import Requirement


def canonical(name: str) -> str:
    """The name of a distribution, however it is written."""
    return name.lower().replace("_", "-").replace(".", "-")


def runtime_packages() -> set[str]:
    """The distributions that come with blip2cli, itself among them."""
    waiting, reached = [("blip2cli", "")], set()
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in reached:
            continue
        reached.add((name, extra))
        try:
            lines = requires(name) or []
        except PackageNotFoundError:  # required on other systems only
            continue
        for requirement in map(Requirement, lines):
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                extras = ["", *requirement.extras]
                waiting += [(canonical(requirement.name), wanted) for wanted in extras]
    return {name for name, _ in reached}


def hidden_modules() -> frozenset[str]:
    """The modules at the top level of all other distributions."""
    packages = runtime_packages()
    hidden = set()
    for module, distributions in packages_distributions().items():
        if not packages.intersection(map(canonical, distributions)):
            hidden.add(module)
    return frozenset(hidden)


class RuntimeFinder(PathFinder):
    """Finds modules as Python does, but for those that are hidden."""

    hidden: ClassVar[frozenset[str]] = hidden_modules()

    @classmethod
    def find_spec(cls, name: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name.partition(".")[0] in cls.hidden:
            return None
        return PathFinder.find_spec(name, path, target)


if __name__ == "__main__":
    sys.meta_path = [RuntimeFinder if entry is PathFinder else entry for entry in sys.meta_path]
    from blip2cli.cli import main

    main()
