"""What a process does in the place of a replica, where only its start is looked at. Imports nothing heavy."""

from typing import Any

from blip2cli.host.signals import ignore


def serve(connection: Any, setup: Any) -> None:
    ignore()
    connection.send(("started",))
