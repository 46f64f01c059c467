"""What other libraries say: nothing, so that this program alone writes to stderr."""

from __future__ import annotations

import logging as stdlib_logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from blip2cli.host.terminal.progress import counted


def hush_libraries() -> None:
    """No progress bars and no advice from transformers and the hub: this program alone
    writes to stderr."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from transformers.utils import logging

    stdlib_logging.getLogger("huggingface_hub").setLevel(stdlib_logging.CRITICAL)
    logging.disable_progress_bar()
    logging.set_verbosity_error()


@contextmanager
def weights_counted() -> Iterator[None]:
    """While inside, weights that transformers loads are counted in the progress that is shown."""
    from transformers.utils import logging

    def count(factory: Any, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        items = args[0] if args else options.get("iterable")
        if items is None or not hasattr(items, "__len__"):
            return factory(*args, **options)
        return counted(items, len(items), "weights")

    before = logging.set_tqdm_hook(count)
    try:
        yield
    finally:
        logging.set_tqdm_hook(before)


class _Silence:
    """Descriptor 2 led to nowhere while at least one thread wants it; two threads overlap in any order."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.inside = 0
        self.saved: int | None = None

    def enter(self) -> None:
        with self.lock:
            self.inside += 1
            if self.inside > 1:
                return
            try:
                self.saved = os.dup(2)
            except OSError:  # it is closed
                return
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, 2)
            os.close(nowhere)

    def leave(self) -> None:
        with self.lock:
            self.inside -= 1
            if self.inside == 0 and self.saved is not None:
                os.dup2(self.saved, 2)
                os.close(self.saved)
                self.saved = None


_silence = _Silence()


@contextmanager
def silent_libraries() -> Iterator[None]:
    """While inside, discard what native code writes to stderr.

    What this program itself says meanwhile, in a handler of signals or another thread, is
    seen: its stderr has a descriptor of its own (`guard_streams`).
    """
    _silence.enter()
    try:
        yield
    finally:
        _silence.leave()
