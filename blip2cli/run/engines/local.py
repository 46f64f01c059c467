"""The run in this process, with its model here or in a process for each of --devices."""

from __future__ import annotations

from contextlib import closing

from blip2cli.host.imports import without_collection
from blip2cli.host.terminal import Progress, hush_libraries, loading, show_plan
from blip2cli.images.ready import ReadyProcesses
from blip2cli.model.checkpoint.hub import check_model_name, named_by
from blip2cli.run.plan import Plan, locked_plan, make_plan
from blip2cli.run.summary import Tally, close
from blip2cli.run.warmup import read_weights, start_cuda, start_processes
from blip2cli.settings import Job


def launch(job: Job) -> Tally | None:
    """Run the job here; None where it is only shown. Raises Blip2Error."""
    if job.output.dry_run:
        show_dry_run(make_plan(job))
        return None
    with locked_plan(job) as plan:
        tally = Tally(plan.finished) if plan.finished else run_plan(plan)
        close(job, tally, plan.source.unread())
    return tally


def show_dry_run(plan: Plan) -> None:
    """Show what a run would do."""
    check_model_names(plan.job)
    with loading(plan.job.model_name, plan.job.output.quiet):  # torch is imported, which takes seconds
        from blip2cli.run.dry_run import describe_plan

        hush_libraries()
        lines = describe_plan(plan)
    show_plan(lines)


def check_model_names(job: Job) -> None:
    """Check that the names of the job's checkpoints may be such. Raises CheckpointError."""
    for option, (settings, kind) in job.checkpoints.items():
        with named_by(option):
            check_model_name(settings.name(kind))


def run_plan(plan: Plan) -> Tally:
    """Compute the rows of a plan, and show progress; nothing is said at the end. Raises Blip2Error, or Interrupted."""
    check_model_names(plan.job)  # before torch is imported: a misspelt name is reported at once
    with closing(Progress(plan.job.output.quiet, plan.job.output.out is None)) as progress:
        progress.load(plan.job.model_name)  # before torch is imported, which takes seconds
        for settings, kind in plan.job.checkpoints.values():
            read_weights(settings, kind)
        with closing(start_processes(plan)) as ready:
            return _run_with(ready, plan, progress)


def _run_with(ready: ReadyProcesses, plan: Plan, progress: Progress) -> Tally:
    with without_collection():
        from blip2cli.run.flow import run

        hush_libraries()
    start_cuda(plan.job.model)
    retried = _retry_errors(plan, progress, ready) if plan.job.output.retry_errors else 0
    tally = run(plan, progress, ready)
    tally.retried = retried
    return tally


def _retry_errors(plan: Plan, progress: Progress, ready: ReadyProcesses) -> int:
    from blip2cli.run.retry import retry_errors

    return retry_errors(plan, progress, ready)
