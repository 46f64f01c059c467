"""What other libraries say: nothing, so that this program alone writes to stderr."""

from __future__ import annotations

import logging as stdlib_logging
import os
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


@contextmanager
def silent_libraries() -> Iterator[None]:
    """While inside, discard what native code writes to stderr."""
    try:
        saved_stderr = os.dup(2)
    except OSError:  # it is closed
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    try:
        yield
    finally:
        os.dup2(saved_stderr, 2)
        os.close(saved_stderr)
