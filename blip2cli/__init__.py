"""blip2cli: run BLIP-2 over image collections, from the command line or from Python.

>>> from blip2cli import Blip2
>>> for row in Blip2("tiny").caption(["docs/examples/red-circle.png"]):
...     print(row["caption"])
a red circle
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from blip2cli.api import Blip2, dedup

__all__ = ["Blip2", "__version__", "dedup"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import the API only when it is used: the help of the command line must not wait for torch."""
    if name in ("Blip2", "dedup"):
        from blip2cli import api

        return getattr(api, name)
    raise AttributeError(name)
