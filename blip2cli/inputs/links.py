"""Links between the members of an archive, and the file that each leads to.

Nothing here opens an archive.
"""

from __future__ import annotations

from collections import deque

MOST_STEPS = 40
"""Links that may follow each other, as on Linux."""

MOST_BYTES = 64 << 20
"""Bytes of names that are kept of one archive's links."""


class BrokenLink(Exception):
    """A link that leads to no file in the archive; the message says why."""


class Links:
    """The links of an archive: symbolic links start in their own folder, hard links at
    the top of the archive."""

    def __init__(self) -> None:
        self.symbolic: dict[str, str] = {}
        self.hard: dict[str, str] = {}
        self.room = MOST_BYTES

    def add(self, name: str, target: str, hard: bool) -> None:
        """Add a link. Links beyond MOST_BYTES are not kept, and lead nowhere."""
        self.room -= len(name) + len(target)
        if self.room >= 0:
            (self.hard if hard else self.symbolic)[normal(name)] = target

    def target(self, name: str) -> str:
        """The normal name of the file that a link finally leads to, through other links.

        Raises BrokenLink.
        """
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
            link = self._link("/".join(reached), is_last=not ahead)
            if link is None:
                continue
            steps += 1
            if steps > MOST_STEPS:
                raise BrokenLink("a link that leads back to itself")
            folder, target = link
            reached = reached[:-1] if folder else []
            ahead.extendleft(reversed(target.split("/")))
        return "/".join(reached)

    def _link(self, path: str, is_last: bool) -> tuple[bool, str] | None:
        """Whether the link at a path starts in its own folder, and its target; None if
        there is no link.

        A hard link stands for a file, so it is only followed at the end of a path. Raises
        BrokenLink.
        """
        if path in self.symbolic:
            target = self.symbolic[path]
            if target.startswith("/"):
                raise BrokenLink("a link that leads out of the archive")
            return True, target
        if is_last and path in self.hard:
            return False, self.hard[path]
        return None


def normal(name: str) -> str:
    """A member's name without ./ and doubled slashes."""
    return "/".join(part for part in name.split("/") if part not in ("", "."))
