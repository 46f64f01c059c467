"""The run on a Ray cluster: replicas take ranges ("stretches") of the input, and each
becomes one shard of the output.

A Ray Data pipeline of two steps: a datasource of stretches, a number each, and a pool of
actors that do them (`ray_replica`). Images never pass through the driver, which sees a
few lines a shard, and keeps the journal: recorded shards are done, so a killed run
continues where it was. Shards have the numbers of their stretches, so that the order of
their names is the order of the input.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import socket
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, closing, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from blip2cli.errors import Blip2Error, UsageError, reason
from blip2cli.host.signals import handlers_kept
from blip2cli.host.terminal import Progress, show_warning, silent_libraries
from blip2cli.outputs.commits import Commit
from blip2cli.outputs.journal import Journal, parts_folder
from blip2cli.outputs.resuming import open_journal
from blip2cli.outputs.shards import check_shard, stamps_of
from blip2cli.outputs.target import Target, make_folder
from blip2cli.run.engines.local import show_dry_run
from blip2cli.run.engines.ray_replica import FAILURES, Replica, ShardProgress, ShardWork
from blip2cli.run.engines.stretches import Stretches
from blip2cli.run.plan import Plan, RowSource, locked_plan, make_plan
from blip2cli.run.summary import Tally, close
from blip2cli.settings import Job

NOT_WITH: dict[str, tuple[Callable[[Job], object], str]] = {
    "--devices": (lambda job: job.model.devices, "Ray places the replicas; use --replicas."),
    "--device-map": (
        lambda job: job.model.device_map,
        "A checkpoint must fit on the GPU of its replica.",
    ),
    "--retry-errors": (
        lambda job: job.output.retry_errors,
        "It is for outputs of one machine.",
    ),
    "--update": (
        lambda job: job.output.update,
        "It is for outputs of one machine; give the new images a folder of their own.",
    ),
    "--shard": (
        lambda job: job.input.shard,
        "It is for machines without a cluster; Ray distributes the rows itself.",
    ),
}
"""Options that cannot be used with the engine, how a job has them, and what to do instead."""

CORES = 4
"""Cores for each replica, if a node has as many."""

TASKS_OF = 1000
"""Stretches that one reading task names."""

JOIN = 10.0
"""Seconds to wait for the head of a cluster: Ray itself tries for minutes, and then ends
the process."""


def launch(job: Job, replica: type[Replica] = Replica) -> Tally | None:
    """Run the job on a cluster; None where it is only shown. Raises Blip2Error.

    Args:
        job: what is to be done.
        replica: the actor class that computes stretches.
    """
    _check_options(job)
    if job.output.dry_run:
        plan = make_plan(job)
        _check_shards(plan)
        show_dry_run(plan)
        return None
    with locked_plan(job) as plan:
        _check_shards(plan)
        tally = _run(plan, replica)
        close(job, tally, plan.source.unread())
    return tally


def _check_options(job: Job) -> None:
    """Raises UsageError for what a cluster cannot do."""
    for option, (value_of, hint) in NOT_WITH.items():
        if value_of(job):
            raise UsageError(f"{option} cannot be used with --engine ray", hint)
    if "-" in job.input.inputs:
        raise UsageError(
            "a list on stdin cannot be used with --engine ray", "Put it in a CSV file with a column `image`."
        )


def _check_shards(plan: Plan) -> None:
    """Raises UsageError if the output is not a folder of shards."""
    if not plan.target.shards:
        raise UsageError("--engine ray writes a folder of shards", "Give one that all nodes can reach: --out FOLDER.")


def _run(plan: Plan, replica: type[Replica]) -> Tally:
    job, target = plan.job, plan.target
    with closing(Progress(job.output.quiet)) as progress, _Cluster(job, progress) as cluster:
        plan = replace(plan, source=cluster.counted(plan.source))
        rows = plan.total or 0
        header = plan.header(plan.carried_types, engine="ray", limit=job.input.limit, input_rows=rows)
        journal = open_journal(target, job.output, header)
        if not target.is_remote:
            make_folder(target.path)
            shutil.rmtree(parts_folder(target.path), ignore_errors=True)  # of a run that was killed
        ledger = _Ledger(target, journal, Stretches(rows, job.output.shard_size))
        ledger.check(plan.source)
        tally = Tally(journal.commit)
        if ledger.stretches.left:
            placed = cluster.place()
            work = ShardWork(replace(plan, job=placed.job), ledger.stretches, placed.cores)
            progress.load(job.model_name)
            with closing(cluster.reports(replica, work, placed)) as reports:
                for number, report in enumerate(reports):
                    if number == 0:
                        progress.begin(rows, journal.commit.rows)
                    progress.advance(report.images, report.errors)
                    if report.finished:
                        ledger.enter(report)
                        _count(tally, report, ledger.stretches)
            for phase in tally.watch.seconds:
                tally.watch.seconds[phase] /= placed.most
        ledger.finish()
    return tally


def _count(tally: Tally, shard: ShardProgress, stretches: Stretches) -> None:
    """Count a finished shard as the run's."""
    first, stop = stretches.bounds(shard.number)
    tally.images += stop - first
    tally.rows += shard.rows
    tally.left_out += shard.left_out
    tally.empty += shard.empty
    tally.kinds.update(shard.kinds)
    tally.reasons.update(shard.reasons)
    tally.batch_size = shard.batch_size
    for phase, seconds in shard.seconds.items():
        tally.watch.seconds[phase] += seconds


@dataclass
class _Ledger:
    """Which shards are done, from the journal."""

    target: Target
    journal: Journal
    stretches: Stretches

    def __post_init__(self) -> None:
        done = tuple((first, last) for first, last in self.journal.commit.state.get("done", ()))
        self.stretches = replace(self.stretches, done=done)

    def check(self, source: RowSource) -> None:
        """Check that finished shards exist, and that the input has not changed.

        Raises UsageError.
        """
        for number in self.stretches.finished():
            check_shard(self.target.path, self._files(number), self.journal.shards.get(number, ()))
        if self.stretches.done:
            _, stop = self.stretches.bounds(self.stretches.done[-1][1])
            source.rows(stop, self.journal.commit.last)  # which raises if it has changed

    def enter(self, shard: ShardProgress) -> None:
        """Record a finished shard."""
        self.stretches = self.stretches.with_done(shard.number)
        before, (first, stop) = self.journal.commit, self.stretches.bounds(shard.number)
        furthest = shard.number == self.stretches.done[-1][1]
        files = self._files(shard.number)
        if all(path.exists() for path in files):  # as the driver sees them
            self.journal.add_shard(shard.number, stamps_of(files))
        self._add(
            Commit(
                rows=before.rows + stop - first,
                last=shard.last if furthest else before.last,
                errors=before.errors + sum(shard.kinds.values()),
                state={"done": self.stretches.done},
            )
        )

    def finish(self) -> None:
        """Close the output. Raises Blip2Error if stretches are left."""
        if self.stretches.left:
            first, _ = self.stretches.bounds(self.stretches.unfinished(0))
            raise Blip2Error(
                f"{self.stretches.left:,} shards failed, the first from row {first:,}: their replicas died",
                "Memory may have run out: use more --cpus-per-replica or a smaller --batch-size, with --resume.",
            )
        if not self.journal.commit.finished:
            self._add(replace(self.journal.commit, finished=True))
        if not self.target.is_remote:
            shutil.rmtree(parts_folder(self.target.path), ignore_errors=True)

    def _files(self, number: int) -> list[Path]:
        """The published files of a shard."""
        return [self.target.path / name.format(number) for name in self.target.format.shard_files]

    def _add(self, commit: Commit) -> None:
        self.journal.add(commit)
        self.journal.seal()


@dataclass(frozen=True)
class _Placed:
    """The replicas: how many, the cores and GPUs of each, and the job with their device
    and workers."""

    job: Job
    fewest: int
    most: int
    gpus: float
    cores: int


class _Cluster:
    """Ray, joined or started when it is needed, and left at the end of the run."""

    def __init__(self, job: Job, progress: Progress) -> None:
        self.job, self.progress = job, progress
        self.joined: Any = None
        self.left = ExitStack()

    def __enter__(self) -> _Cluster:
        null = self.left.enter_context(open(os.devnull, "w"))
        self.left.enter_context(redirect_stdout(null))  # Ray reports here which nodes die; our rows do not go there
        return self

    def __exit__(self, *failure: object) -> None:
        with self.left:
            if self.joined is not None:
                self.joined.shutdown()

    @property
    def ray(self) -> Any:
        """The module `ray`, with the cluster joined."""
        if self.joined is None:
            self.progress.load("Ray")
            self.joined = _join(self.job.engine.ray_address)
        return self.joined

    def counted(self, source: Any) -> Any:
        """The source; if it does not know its number of rows, tasks of the cluster count
        them."""
        if source.count() is not None:
            return source
        source = source.split()
        count = self.ray.remote(num_cpus=1)(_count_rows)
        unknown = [part for part in source.parts if part.count() is None]
        return source.with_counts(self.ray.get([count.remote(part) for part in unknown]))

    def place(self) -> _Placed:
        """Decide how many replicas there are and what each gets.

        Raises UsageError if there is no room.
        """
        settings, model = self.job.engine, self.job.model
        nodes = [node["Resources"] for node in self.ray.nodes() if node["Alive"]]
        any_gpus = any(node.get("GPU") for node in nodes) and not model.device.startswith(("cpu", "mps"))
        gpus = settings.gpus_per_replica if settings.gpus_per_replica is not None else float(any_gpus)
        cores = settings.cpus_per_replica or min(CORES, int(max(node.get("CPU", 0) for node in nodes)) or 1)
        room = sum(_room(node, cores, gpus) for node in nodes)
        fewest, most = settings.fewest_and_most or (room, room)
        if not room and not most > fewest:
            raise UsageError(
                f"no node of the cluster has room for a replica: {cores} cores and {gpus:g} GPUs",
                "Ask for less: --cpus-per-replica, --gpus-per-replica; or --replicas 1-N if nodes are added on demand.",
            )
        if most > room:
            show_warning(f"the cluster has room for {room} replicas now; up to {most} are asked for")
        device = model.device if model.device != "auto" else "cuda" if gpus else "cpu"
        workers = max(1, cores - 1) if model.workers is None else model.workers
        placed = replace(self.job, model=replace(model, device=device, workers=workers))
        return _Placed(placed, fewest, most, gpus, cores)

    def reports(self, replica: type[Replica], work: ShardWork, placed: _Placed) -> Generator[ShardProgress]:
        """The reports of the replicas, as they come; close it before leaving the cluster.

        Raises their failures.
        """
        from ray import data

        context = data.DataContext.get_current()
        context.enable_progress_bars = False
        context.target_max_block_size = 1  # so that every stretch is a task, and its reports come at once
        context.autoscaling_config.actor_pool_util_upscaling_threshold = 1.0
        stretches = data.read_datasource(_datasource(work.stretches.left), num_cpus=0, concurrency=1)  # in order
        pool = data.ActorPoolStrategy(min_size=placed.fewest, max_size=placed.most, max_tasks_in_flight_per_actor=1)
        reports = stretches.map_batches(
            replica,
            fn_constructor_args=(work,),
            batch_size=None,
            compute=pool,
            num_cpus=placed.cores,
            num_gpus=placed.gpus or None,
        )
        try:
            for text in self._texts(reports):
                yield _checked(ShardProgress.unpacked(text))
        except self.ray.exceptions.RayError as error:
            raise Blip2Error(
                f"the cluster failed: {reason(error)}", "Check `ray status`, then continue with --resume."
            ) from error

    def _texts(self, reports: Any) -> Iterator[str]:
        """The dataset's only column. `iter_batches` will not do: its thread may outlive
        the connection, of which Ray ends the process.
        """
        bundles = reports.iter_internal_ref_bundles()
        try:
            for bundle in bundles:
                for block in bundle.blocks:
                    yield from self.ray.get(block.ref)["report"].to_pylist()
        finally:
            del bundles  # which ends unfinished tasks


def _checked(report: ShardProgress) -> ShardProgress:
    """The report of a replica that has not failed.

    Raises the Blip2Error that it failed with.
    """
    if report.failure is None:
        return report
    kind, message, hint = report.failure
    raise FAILURES[kind](message, hint)


def _count_rows(source: Any) -> int:
    return sum(1 for _ in source.rows())


def _room(node: dict[str, float], cores: int, gpus: float) -> int:
    """How many replicas fit on a node."""
    by_cores = int(node.get("CPU", 0) // cores)
    return min(by_cores, int(node.get("GPU", 0) / gpus + 1e-9)) if gpus else by_cores


def _datasource(number: int) -> Any:
    """The numbers 0 … number - 1, one block each, as a datasource of Ray Data."""
    import pyarrow as pa
    from ray.data.block import BlockMetadata
    from ray.data.datasource import Datasource, ReadTask

    class Positions(Datasource):
        def get_name(self) -> str:
            return "Stretches"

        def estimate_inmemory_data_size(self) -> int:
            return 8 * number

        def get_read_tasks(self, parallelism: int, *args: Any, **kwargs: Any) -> list[Any]:
            starts = range(0, number, TASKS_OF)
            return [_read_task(range(start, min(start + TASKS_OF, number))) for start in starts]

    def _read_task(positions: range) -> Any:
        about = BlockMetadata(num_rows=len(positions), size_bytes=8 * len(positions), input_files=None, exec_stats=None)
        return ReadTask(lambda: (pa.table({"position": [position]}) for position in positions), about)

    return Positions()


def _join(address: str | None) -> Any:
    """Join a cluster, or start one on this machine; gives the module `ray`.

    Raises UsageError.
    """
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # its native part writes to stderr, past any handler
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
        import ray.data
    except ImportError:
        raise UsageError("--engine ray needs Ray", "Install it: pip install 'blip2cli[ray]'") from None
    try:
        if address and (found := re.fullmatch(r"(?:ray://)?(.+):(\d+)", address)):
            socket.create_connection((found[1], int(found[2])), JOIN).close()
        with silent_libraries(), handlers_kept():
            ray.init(address, logging_level=logging.ERROR, log_to_driver=False, include_dashboard=False)
    except (OSError, ValueError, RuntimeError) as error:
        raise UsageError(
            f"cannot join the Ray cluster {address or ''}: {reason(error)}", "Check that it is running: ray status."
        ) from None
    for name in ("ray", "ray.data"):  # the important part is in our own message
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return ray
