"""Links between the members of an archive: to which file each leads. Nothing here opens an archive."""

from __future__ import annotations

from collections import deque

MOST_STEPS = 40
"""Links that one may lead through, as on Linux."""

MOST_BYTES = 64 << 20
"""Bytes of names that are kept of one archive's links."""


class BrokenLink(Exception):
    """A link that leads to no file in the archive; the message says why."""


class Links:
    """The links of an archive: symbolic ones, which start from their own folder, and hard ones, from the top."""

    def __init__(self) -> None:
        self.symbolic: dict[str, str] = {}
        self.hard: dict[str, str] = {}
        self.room = MOST_BYTES

    def add(self, name: str, target: str, hard: bool) -> None:
        """Note a link. Those beyond MOST_BYTES are not kept, and lead nowhere."""
        self.room -= len(name) + len(target)
        if self.room >= 0:
            (self.hard if hard else self.symbolic)[normal(name)] = target

    def target(self, name: str) -> str:
        """The normal name of what a link leads to in the end, through other links. Raises BrokenLink."""
        reached: list[str] = []
        ahead = deque(name.split("/"))
        steps = 0
        while ahead:
            part = ahead.popleft()
            if part in ("", "."):
                continue
            if part == "..":
                if not reached:
                    raise BrokenLink("a link that leads out of the archive")
                reached.pop()
                continue
            reached.append(part)
            path = "/".join(reached)
            target, hard = self.symbolic.get(path), False
            if target is None and not ahead:
                target, hard = self.hard.get(path), True
            if target is None:
                continue
            steps += 1
            if steps > MOST_STEPS:
                raise BrokenLink("a link that leads back to itself")
            if not hard and target.startswith("/"):
                raise BrokenLink("a link that leads out of the archive")
            reached = [] if hard else reached[:-1]
            ahead.extendleft(reversed(target.split("/")))
        return "/".join(reached)


def normal(name: str) -> str:
    """A member's name without what says nothing: ./ and doubled slashes."""
    return "/".join(part for part in name.split("/") if part not in ("", "."))
