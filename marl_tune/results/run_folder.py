"""A run's folder: where each file of a run lies, and how it is written.

Every file is replaced as a whole: it is written beside its place and then moved there. So a reader never sees half a
file, not even of a run that was killed. The one exception is progress.csv, which grows by one line a result; see
`marl_tune.loggers.progress_csv.ProgressCsv`.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

from marl_tune.results.json_records import BestEntry, SummaryFile
from marl_tune.results.records import BreakthroughRecord, LineageRecord, TrialRecord
from marl_tune.results.text_files import as_cell, as_json, blank, from_cell, read_csv, write_csv, write_json

TRIAL_COLUMNS = ("score", "iterations", "seconds", "env_steps", "agent_steps", "checkpoint", "error")
TUNE_STATE = "experiment_state-*.json"  # in tune/: how Tune names its state of a sweep
LINEAGE_COLUMNS = ("step", "from", "to", "old", "new")
BREAKTHROUGH_COLUMNS = ("trial", "iteration", "who", "level", "baseline", "deviations")


class RunHeldError(RuntimeError):
    """Another process is working on the run."""


class RunFolder:
    """The folder of one run. Its attributes are the paths of the files in it.

    Args:
        path: the folder.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).absolute()
        self.config = self.path / "config.yaml"
        self.manifest = self.path / "manifest.json"
        self.tune = self.path / "tune"
        self.trials = self.path / "trials.csv"
        self.progress = self.path / "progress.csv"
        self.lineage = self.path / "lineage.csv"
        self.breakthroughs = self.path / "breakthroughs.csv"
        self.pool = self.path / "pool"
        self.self_play = self.path / "self_play.json"
        self.best = self.path / "best"
        self.best_checkpoint = self.best / "checkpoint"
        self.best_config = self.best / "config.yaml"
        self.evaluation = self.best / "evaluation.json"
        self.report = self.path / "report.html"
        self.summary = self.path / "summary.json"
        self.tensorboard = self.path / "tensorboard"
        self.wandb_runs = self.path / "wandb" / "runs.json"

    @classmethod
    def create(cls, results_dir: str | Path, name: str, now: datetime | None = None) -> RunFolder:
        """Makes the folder `results_dir/name/2026-11-21_10-00-00`; _2, _3, … is added for runs of the same second.

        Raises:
            ValueError: `name` is empty or holds a path separator.
        """
        if not name.strip(". ") or "/" in name or "\\" in name:
            raise ValueError(f"name must be a plain word that can name a folder, got {name!r}")
        stamp = (now or datetime.now()).strftime("%Y-%m-%d_%H-%M-%S")
        parent = Path(results_dir) / name
        parent.mkdir(parents=True, exist_ok=True)
        number = 1
        while True:
            path = parent / (stamp if number == 1 else f"{stamp}_{number}")
            try:
                path.mkdir()  # of two processes only one succeeds
            except FileExistsError:
                number += 1
            else:
                return cls(path)

    @classmethod
    def open(cls, path: str | Path) -> RunFolder:
        """The existing run folder at `path`.

        Raises:
            FileNotFoundError: there is no such folder, or it is not a run's folder.
        """
        folder = cls(path)
        if not folder.path.is_dir():
            raise FileNotFoundError(f"{path} is not a folder")
        if not folder.config.exists() and not folder.manifest.exists():
            raise FileNotFoundError(f"{path} is not a run's folder: it holds neither config.yaml nor manifest.json")
        return folder

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """A context in which no other process can hold this run: two would overwrite each other's checkpoints.

        The lock ends with the process, however the process ends. On a file system without locks, nothing is locked.

        Raises:
            RunHeldError: another process of this machine holds the run.
        """
        with (self.path / ".lock").open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                raise RunHeldError(f"process {file.read().strip() or 'unknown'} works on it") from None
            except OSError:
                yield
                return
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            yield

    @property
    def title(self) -> str:
        """The run's name and time: `ant_colony/2026-11-21_10-00-00`."""
        return f"{self.path.parent.name}/{self.path.name}"

    @property
    def begun_by_tune(self) -> bool:
        """Whether the folder holds a state of the sweep by Tune. Only Tune can resume such a run."""
        return any(self.tune.glob(TUNE_STATE))

    def relative(self, path: str | Path) -> str:
        """`path` as result files name it: relative to this folder if it lies in it, else absolute."""
        absolute = Path(path).absolute()
        return absolute.relative_to(self.path).as_posix() if absolute.is_relative_to(self.path) else absolute.as_posix()

    # -- trials -----------------------------------------------------------------------------------------------------

    def write_trials(self, trials: Sequence[TrialRecord]) -> None:
        """Writes trials.csv: one row for each trial, one column for each searched key."""
        keys = list(dict.fromkeys(key for trial in trials for key in trial.overrides))
        rows = []
        for trial in trials:
            values = {key: as_cell(trial.overrides[key]) for key in keys if key in trial.overrides}
            ends = {column: blank(getattr(trial, column)) for column in TRIAL_COLUMNS}
            rows.append({"trial": trial.id, "status": trial.status, **values, **ends})
        write_csv(self.trials, ["trial", "status", *keys, *TRIAL_COLUMNS], rows)

    def read_trials(self) -> list[TrialRecord]:
        """The rows of trials.csv; empty if there is no such file yet."""
        records = []
        for row in read_csv(self.trials):
            known = (*TRIAL_COLUMNS, "trial", "status")
            overrides: dict[str, object] = {
                key: from_cell(cell) for key, cell in row.items() if key not in known and cell != ""
            }
            number = {c: float(row[c] or 0) for c in ("iterations", "seconds", "env_steps", "agent_steps")}
            records.append(
                TrialRecord(
                    id=row["trial"],
                    status=row["status"],
                    overrides=overrides,
                    score=float(row["score"]) if row["score"] else None,
                    iterations=int(number["iterations"]),
                    seconds=number["seconds"],
                    env_steps=int(number["env_steps"]),
                    agent_steps=int(number["agent_steps"]),
                    checkpoint=row["checkpoint"] or None,
                    error=row["error"] or None,
                )
            )
        return records

    # -- lineage ----------------------------------------------------------------------------------------------------

    def read_lineage(self) -> list[LineageRecord]:
        """The exploits so far, oldest first."""
        return [
            LineageRecord(int(row["step"]), row["from"], row["to"], json.loads(row["old"]), json.loads(row["new"]))
            for row in read_csv(self.lineage)
        ]

    def write_lineage(self, records: Sequence[LineageRecord]) -> None:
        """Writes lineage.csv: one row for each exploit. `old` and `new` are JSON objects of dotted keys."""
        rows = [
            {"step": r.step, "from": r.source, "to": r.to, "old": as_json(r.old), "new": as_json(r.new)}
            for r in records
        ]
        write_csv(self.lineage, LINEAGE_COLUMNS, rows)

    # -- breakthroughs ----------------------------------------------------------------------------------------------

    def read_breakthroughs(self) -> list[BreakthroughRecord]:
        """The breakthroughs so far, oldest first."""
        return [
            BreakthroughRecord(
                trial=row["trial"],
                iteration=int(row["iteration"]),
                who=row["who"],
                level=float(row["level"]),
                baseline=float(row["baseline"]),
                deviations=float(row["deviations"]),
            )
            for row in read_csv(self.breakthroughs)
        ]

    def write_breakthroughs(self, records: Sequence[BreakthroughRecord]) -> None:
        """Writes breakthroughs.csv: one row for each breakthrough. Without breakthroughs there is no file."""
        if records:
            write_csv(self.breakthroughs, BREAKTHROUGH_COLUMNS, map(vars, records))
        else:
            self.breakthroughs.unlink(missing_ok=True)

    # -- summary ----------------------------------------------------------------------------------------------------

    def write_summary(
        self,
        *,
        status: str,
        name: str,
        seed: int,
        metric: str,
        mode: str,
        wall_time_s: float,
        trials: Sequence[TrialRecord],
        best: BestEntry | None,
    ) -> None:
        """Writes summary.json, the last file of a run.

        Args:
            status: finished | failed (some trial failed for good) | interrupted.
            name, seed: of the sweep.
            metric, mode: search.metric and search.mode.
            wall_time_s: seconds that the sweep took.
            trials: all trials; their steps are summed.
            best: the winner; None: no winner was selected.
        """
        summary: SummaryFile = {
            "status": status,
            "name": name,
            "seed": seed,
            "metric": metric,
            "mode": mode,
            "wall_time_s": wall_time_s,
            "env_steps": sum(trial.env_steps for trial in trials),
            "agent_steps": sum(trial.agent_steps for trial in trials),
            "trials": [
                {key: getattr(t, key) for key in ("id", "status", "overrides", "score", "iterations", "error")}
                for t in trials
            ],
            "best": best,
        }
        write_json(self.summary, summary)


def as_typed(path: Path) -> str:
    """`path` as a user would type it: relative to the current folder if it lies in it."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
