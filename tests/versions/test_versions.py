"""The versions that pyproject.toml allows are those that `make test-oldest` and `make test-pythons` install."""

import json
import re
import subprocess
import sys
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from tests.versions.oldest import EXTRAS, UNTESTED, constraints, lowest, project, requirements
from tests.versions.runtime import hidden_modules, runtime_packages

ROOT = Path(__file__).parents[2]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


def test_every_dependency_has_a_lower_bound_that_is_tested_or_said_not_to_be() -> None:
    constrained = {line.partition("==")[0] for line in constraints()}
    for requirement in requirements():
        assert lowest(requirement) is not None, requirement
        assert (requirement.name in constrained) != (requirement.name in UNTESTED), requirement


def test_the_oldest_versions_are_allowed_by_every_requirement_of_them() -> None:
    oldest = dict(line.split("==") for line in constraints())
    for requirement in requirements():
        if requirement.name in oldest:
            assert requirement.specifier.contains(oldest[requirement.name]), requirement


def test_the_newest_versions_are_those_of_the_constraints_and_are_allowed() -> None:
    pinned = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").split())
    newest = {name.lower().replace("_", "-"): version for name, version in pinned.items()}
    for requirement in requirements():
        version = newest[requirement.name.lower().replace("_", "-")]
        assert requirement.specifier.contains(version), f"{requirement}, {version}"


def test_one_package_has_one_lower_bound() -> None:
    bounds: dict[str, set[str | None]] = {}
    for requirement in requirements(project()["optional-dependencies"]):
        if requirement.specifier:
            bounds.setdefault(requirement.name.lower().replace("_", "-"), set()).add(lowest(requirement))
    assert {name: found for name, found in bounds.items() if len(found) > 1} == {}


def test_the_pythons_that_are_tried_are_those_that_are_allowed() -> None:
    (listed,) = re.findall(r"^PYTHONS \?= (.*)$", MAKEFILE, re.MULTILINE)
    allowed = SpecifierSet(project()["requires-python"])
    assert all(allowed.contains(f"{version}.0") for version in listed.split())
    assert listed.split()[0] == str(allowed).removeprefix(">=")


def test_the_extras_that_are_installed_are_those_whose_bounds_are_constrained() -> None:
    assert f'-e ".[{",".join(EXTRAS)}]"' in MAKEFILE


def test_the_makefile_leaves_torch_at_one_version() -> None:
    (torch,) = re.findall(r"^TORCH \?= (\S+)$", MAKEFILE, re.MULTILINE)
    (allowed,) = (requirement for requirement in requirements() if requirement.name == "torch")
    assert allowed.specifier.contains(str(Requirement(torch).specifier).removeprefix("=="))


def test_a_run_needs_nothing_but_the_packages_that_are_always_installed() -> None:
    assert {"torch", "transformers", "typer"} <= runtime_packages()
    assert "pytest" in hidden_modules()
    words = ("caption", "docs/examples/red-circle.png", "--model", "tiny")
    ran = subprocess.run(
        [sys.executable, "-m", "tests.versions.runtime", *words], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)["caption"] == "a red circle"
