"""Free memory is that of the machine, within the limit of its control group."""

import os
from pathlib import Path

import pytest

from blip2cli.host import memory


def test_free_memory_is_less_than_what_the_machine_has() -> None:
    assert 0 < memory.free_ram() < os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize(("limit", "expected"), [("3000", 2000), ("max", None), ("500", 0)])
def test_the_limit_of_a_control_group_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, expected: int | None
) -> None:
    (tmp_path / "memory.max").write_text(f"{limit}\n")
    (tmp_path / "memory.stat").write_text("anon 1000\nfile 900000\n")
    monkeypatch.setattr(memory, "CONTROL_GROUPS", ((tmp_path, "memory.max", "anon"), (tmp_path / "gone", "x", "y")))
    monkeypatch.setattr(memory, "_available", lambda: 10_000)
    assert memory.free_ram() == (10_000 if expected is None else expected)
