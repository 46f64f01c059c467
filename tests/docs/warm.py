"""A `blip2` that answers at once: each command is a process forked from one that has imported what takes seconds.

It reads its own command line, environment, folder, stdin, stdout and stderr, as the installed `blip2` does.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.docs.pages import REPOSITORY

CLIENT = """\
#!{python} -SE
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    told = [sys.argv[1:], os.getcwd(), dict(os.environ)]
    socket.send_fds(server, [json.dumps(told).encode()], [0, 1, 2])
    sys.exit(ord(server.recv(1) or b"?"))
"""


@contextmanager
def warm_blip2() -> Iterator[Path]:
    """A folder with such a command, which is there while inside."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:  # an address of a socket may have some hundred letters only
        folder = Path(name)
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(folder / "socket"))
            listening.listen()
            number, one_thread = listening.fileno(), {**os.environ, "OMP_NUM_THREADS": "1"}
            arguments = [sys.executable, "-m", "tests.docs.warm", str(number)]
            server = subprocess.Popen(
                arguments, cwd=REPOSITORY, pass_fds=[number], stdin=subprocess.DEVNULL, env=one_thread
            )
        install(folder, str(folder / "socket"))
        try:
            yield folder
        finally:
            server.kill()
            server.wait()


def install(folder: Path, address: str) -> None:
    """Put a command `blip2` into the folder, which asks the server at the address."""
    command = folder / "blip2"
    command.write_text(CLIENT.format(python=sys.executable, address=address))
    command.chmod(0o755)


def serve(listening: socket.socket) -> None:
    """Import what the command line needs, then fork a process for every command until killed."""
    import pyarrow.parquet  # noqa: F401

    run_once()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        client, _ = listening.accept()
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            listening.close()
            _answer(client)
        client.close()


def run_once() -> None:
    """Caption an image in this process, so that what is imported on the way is there in all that are forked.

    Not by the command line, which takes stderr and signals for itself.
    """
    import blip2cli.cli
    import blip2cli.run.flow  # noqa: F401
    from blip2cli.api import Blip2

    image = REPOSITORY / "docs" / "examples" / "red-circle.png"
    assert list(Blip2("tiny", dtype="fp32", workers=0).caption(image))


def _answer(client: socket.socket) -> None:
    from blip2cli.cli import main
    from blip2cli.host.stopwatch import restart_clock

    restart_clock()
    told, files, _, _ = socket.recv_fds(client, 1 << 20, 3)
    arguments, folder, environment = json.loads(told)
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["blip2", *arguments]
    status = 0
    try:
        main()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    sys.stdout.flush()
    sys.stderr.flush()
    client.send(bytes([status]))
    os._exit(0)


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
