"""Runs a sweep: decides where its trials are trained, makes the run's folder, and returns the exit code.

The modules that train take seconds to import, so they are imported last, while Ray's processes start.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import yaml

from marl_tune.cluster import connect
from marl_tune.cluster.fast_imports import uncollected
from marl_tune.cluster.machine import check_cluster, machine_resources
from marl_tune.cluster.ray_quiet import quiet_ray
from marl_tune.config import convert
from marl_tune.config.errors import invalid
from marl_tune.config.schema.sweep import SweepConfig
from marl_tune.config.search_space import parse, trial_count
from marl_tune.config.trial_resources import trial_resources
from marl_tune.results.manifest import begin_manifest
from marl_tune.results.run_folder import RunFolder, RunHeldError, as_typed
from marl_tune.results.text_files import write_text

EXIT_CODES = {"finished": 0, "failed": 1, "interrupted": 130}


def run(sweep: SweepConfig, command: Sequence[str]) -> int:
    """Runs a sweep, resumes one, or only prints its plan (dry_run).

    Returns:
        0: all trials finished. 1: some trial failed after its retries. 130: interrupted (`resume=` continues it).
    """
    if sweep.dry_run:
        from marl_tune.sweep.dry_run import print_plan

        print_plan(sweep)
        return EXIT_CODES["finished"]
    folder = None if sweep.resume is None else RunFolder.open(sweep.resume)
    if folder is not None:
        sweep = saved_sweep(folder)
        ignored = [word for word in command if "=" in word and not word.startswith("resume=")]
        if ignored:
            print(f"a resumed run keeps its own settings; ignored: {' '.join(ignored)}", file=sys.stderr)
    quiet_ray()
    here = trains_here(sweep, folder)
    if processes(sweep, here) > 0:
        connect.connect(sweep.cluster, processes(sweep, here))
        check_cluster(sweep, connect.available(), "the cluster")
    if folder is None:
        folder = RunFolder.create(sweep.results_dir, sweep.name)
        write_text(folder.config, yaml.safe_dump(convert.to_dict(sweep), sort_keys=False))
    try:
        with folder.held():
            return _train(sweep, folder, here, command)
    except RunHeldError as error:
        raise invalid("resume", f"name a run that no other process works on ({error})", as_typed(folder.path)) from None


def _train(sweep: SweepConfig, folder: RunFolder, here: bool, command: Sequence[str]) -> int:
    begin_manifest(folder, {"sweep": sweep.seed, "selection": sweep.selection.seed}, command)
    try:
        with uncollected():
            from marl_tune.sweep.session import run_session
        status = run_session(sweep, folder, here)
    except KeyboardInterrupt:  # before the first trial began, or while the winner was selected
        status = "interrupted"
    if status == "interrupted":
        print(f"interrupted; go on with: python -m marl_tune resume={as_typed(folder.path)}")
    return EXIT_CODES[status]


def trains_here(sweep: SweepConfig, folder: RunFolder | None) -> bool:
    """Whether this process trains the trial: the sweep has one only, on this machine, without GPUs (Ray assigns them).

    Args:
        folder: of a run to resume. A run that Tune began is resumed by Tune. None: a new run.
    """
    return (
        sweep.search.name == "none"
        and sweep.search.num_samples == 1
        and sweep.cluster.name == "local"
        and trial_resources(sweep).gpus == 0
        and (folder is None or not folder.begun_by_tune)
    )


def processes(sweep: SweepConfig, here: bool) -> int:
    """Number of Ray's processes that the sweep uses at once: its trials, unless trained `here`, and their workers."""
    space = parse(sweep.space) if sweep.search.name != "none" else {}
    trials = min(
        trial_count(sweep.search.name, sweep.search.num_samples, space),
        connect.concurrent_trials(sweep, machine_resources()),
    )
    return trials * (sweep.cluster.num_env_runners + sweep.cluster.num_learners + (0 if here else 1))


def saved_sweep(folder: RunFolder) -> SweepConfig:
    """The settings of an earlier run, from its config.yaml."""
    return convert.from_dict(yaml.safe_load(folder.config.read_text()))
