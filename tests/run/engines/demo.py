"""`make cluster-demo`: a cluster of two nodes on this machine captions images, while a node and the driver are killed.

What is left is compared, byte for byte, with the shards that one machine writes.
"""

import json
import shlex
import signal
import subprocess
import tempfile
from pathlib import Path

from tests.run.engines.cluster import BLIP2, ENV, Cluster, committed, ended, files, same, started, wait_for

EXAMPLES = Path(__file__).parents[3] / "docs" / "examples"
ROWS, SHARD_SIZE = 2_000, 50
"""A row in a hundred has no image."""


def main() -> None:
    with tempfile.TemporaryDirectory() as name, started(2) as cluster:
        folder = Path(name)
        manifest = write_manifest(folder / "images.jsonl")
        alone = [*BLIP2, "caption", str(manifest), "--model", "tiny", "--out", str(folder / "alone"), "--quiet"]
        tell(f"One process captions {ROWS:,} images, to have something to compare with.")
        subprocess.run([*alone, "--shard-size", str(SHARD_SIZE)], env=ENV)
        cluster.tell("add 2")
        tell("A cluster of two nodes, two cores each, does the same:")
        show_killed(cluster, manifest, folder / "shards")
        if not same(folder / "shards", folder / "alone"):
            raise SystemExit("The shards differ from those of one process. This should not happen.")
        tell(f"The {len(files(folder / 'shards'))} shards are those that one process writes, byte for byte.")


def show_killed(cluster: Cluster, manifest: Path, out: Path) -> None:
    """Run, kill a node, kill the driver, and go on."""
    asked = ("caption", manifest, "--out", out, "--shard-size", SHARD_SIZE)
    run = cluster.start(*asked)
    show(cluster.command(*asked))
    wait_for(lambda: len(committed(out)) >= 4, run)
    tell(f"{len(committed(out))} shards are on record; {len(cluster.replicas())} replicas work. One node is killed.")
    cluster.tell("kill")
    seen = len(committed(out))
    wait_for(lambda: len(committed(out)) >= seen + 4, run)
    tell(
        f"The other node goes on: {len(committed(out))} shards. Now the driver is killed (SIGKILL), and started again."
    )
    run.send_signal(signal.SIGKILL)
    ended(run)
    wait_for(lambda: not cluster.replicas())
    kept = len(committed(out))
    show(cluster.command(*asked, "--resume"))
    done = cluster.run(*asked, "--resume")
    print(done.stderr, end="", flush=True)
    if done.returncode != 3:  # finished, and some rows carry errors
        raise SystemExit(f"It ended with exit code {done.returncode}. This should not happen.")
    tell(f"{kept} shards were not computed again.")


def write_manifest(path: Path) -> Path:
    images = sorted(map(str, EXAMPLES.rglob("*.png")))
    names = ["gone.png" if number % 100 == 55 else images[number % len(images)] for number in range(ROWS)]
    path.write_text("".join(json.dumps({"image": name, "id": number}) + "\n" for number, name in enumerate(names)))
    return path


def tell(text: str) -> None:
    print(f"# {text}", flush=True)


def show(command: list[str]) -> None:
    print(f"$ blip2 {shlex.join(command[len(BLIP2) :])}", flush=True)


if __name__ == "__main__":
    main()
