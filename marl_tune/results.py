"""A run's folder: where each file of a run lies, and how it is written.

Every file is replaced as a whole (written beside its place, then moved there), so that neither a reader nor a run that
is killed ever leaves or meets half a file. The one exception is progress.csv, which grows by a line a result; see
`marl_tune.callbacks.ProgressCsv`.
"""

from __future__ import annotations

import contextlib
import csv
import fcntl
import io
import json
import math
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

TRIAL_COLUMNS = ("score", "iterations", "seconds", "env_steps", "agent_steps", "checkpoint", "error")
TUNE_STATE = "experiment_state-*.json"  # in tune/: how Tune names its state of a sweep
LINEAGE_COLUMNS = ("step", "from", "to", "old", "new")
BREAKTHROUGH_COLUMNS = ("trial", "iteration", "who", "level", "baseline", "deviations")


@dataclass
class TrialRecord:
    """How one trial ended: a row of trials.csv and an entry of summary.json."""

    id: str  # Tune's id of the trial
    status: str  # Tune's word: PENDING | RUNNING | PAUSED | TERMINATED | ERROR
    overrides: dict[str, Any]  # dotted key -> value, as it can be typed on the command line
    score: float | None = None  # search.metric of the last result; None: no result, or no episode ended
    iterations: int = 0  # training iterations
    seconds: float = 0.0  # time that the trial trained
    env_steps: int = 0  # steps of the world, at least 0
    agent_steps: int = 0  # the same, summed over agents
    checkpoint: str | None = None  # newest checkpoint, relative to the run's folder
    error: str | None = None  # last line of the error that ended the trial


@dataclass(frozen=True)
class LineageRecord:
    """One exploit of population based training: `to` goes on from a copy of `source`, with changed settings."""

    step: int  # training iteration that `to` had reached
    source: str  # trial that was copied
    to: str  # trial that was overwritten
    old: dict[str, Any] = field(default_factory=dict)  # dotted key -> value of `to` before
    new: dict[str, Any] = field(default_factory=dict)  # dotted key -> value of `to` from now on


@dataclass(frozen=True)
class BreakthroughRecord:
    """One breakthrough: a row of breakthroughs.csv."""

    trial: str  # in which it happened
    iteration: int  # training iteration that it had reached
    who: str  # team, or an agent's id
    level: float  # mean return of the window that rose
    baseline: float  # mean return of the episodes before
    deviations: float  # their difference in standard deviations of such a difference; infinite where those are 0


class RunHeldError(RuntimeError):
    """Another process works on the run."""


class RunFolder:
    """The folder of one run; its attributes are the paths of the files that users rely on."""

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
        """Makes `results_dir/name/2026-11-21_10-00-00`; runs that start in the same second get _2, _3 and so on.

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
                path.mkdir()  # the one step that two processes cannot both succeed in
            except FileExistsError:
                number += 1
            else:
                return cls(path)

    @classmethod
    def open(cls, path: str | Path) -> RunFolder:
        """The existing run folder at `path`.

        Raises:
            FileNotFoundError: there is no such folder, or no run ever began in it.
        """
        folder = cls(path)
        if not folder.path.is_dir():
            raise FileNotFoundError(f"{path} is not a folder")
        if not folder.config.exists() and not folder.manifest.exists():
            raise FileNotFoundError(f"{path} is not a run's folder: it holds neither config.yaml nor manifest.json")
        return folder

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Keeps this run to this process: two that go on with one run would overwrite each other's checkpoints.

        The lock goes with the process, however that ends. On a file system without locks nothing is held.

        Raises:
            RunHeldError: another process of this machine works on the run.
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
        """Whether Tune has left a state of the sweep here, with which only it can go on."""
        return any(self.tune.glob(TUNE_STATE))

    def relative(self, path: str | Path) -> str:
        """`path` as the result files name it: relative to this folder, with forward slashes; else absolute."""
        absolute = Path(path).absolute()
        return absolute.relative_to(self.path).as_posix() if absolute.is_relative_to(self.path) else absolute.as_posix()

    # -- trials -----------------------------------------------------------------------------------------------------

    def write_trials(self, trials: Sequence[TrialRecord]) -> None:
        """Writes trials.csv: one row a trial, one column a searched key."""
        keys = list(dict.fromkeys(key for trial in trials for key in trial.overrides))
        rows = []
        for trial in trials:
            values = {key: as_cell(trial.overrides[key]) for key in keys if key in trial.overrides}
            ends = {column: _blank(getattr(trial, column)) for column in TRIAL_COLUMNS}
            rows.append({"trial": trial.id, "status": trial.status, **values, **ends})
        _write_csv(self.trials, ["trial", "status", *keys, *TRIAL_COLUMNS], rows)

    def read_trials(self) -> list[TrialRecord]:
        """The rows of trials.csv; empty when it was not written yet."""
        records = []
        for row in read_csv(self.trials):
            known = (*TRIAL_COLUMNS, "trial", "status")
            overrides = {key: from_cell(cell) for key, cell in row.items() if key not in known and cell != ""}
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
        """The exploits so far, in order; empty when there was none."""
        return [
            LineageRecord(int(row["step"]), row["from"], row["to"], json.loads(row["old"]), json.loads(row["new"]))
            for row in read_csv(self.lineage)
        ]

    def write_lineage(self, records: Sequence[LineageRecord]) -> None:
        """Writes lineage.csv: one row an exploit; `old` and `new` are JSON objects of dotted keys."""
        rows = [
            {"step": r.step, "from": r.source, "to": r.to, "old": as_json(r.old), "new": as_json(r.new)}
            for r in records
        ]
        _write_csv(self.lineage, LINEAGE_COLUMNS, rows)

    # -- breakthroughs ----------------------------------------------------------------------------------------------

    def read_breakthroughs(self) -> list[BreakthroughRecord]:
        """The breakthroughs so far, in order; empty when there was none."""
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
        """Writes breakthroughs.csv: one row a breakthrough; no file where there is none."""
        if records:
            _write_csv(self.breakthroughs, BREAKTHROUGH_COLUMNS, map(vars, records))
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
        best: Mapping[str, Any] | None,
    ) -> None:
        """Writes summary.json, the last file of a run.

        Args:
            status: finished | failed (some trial failed for good) | interrupted.
            best: `{"trial", "overrides", "checkpoint", "evaluation"}` of the winner; None: none was selected.
        """
        summary = {
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
            "best": None if best is None else dict(best),
        }
        write_json(self.summary, summary)


def as_typed(path: Path) -> str:
    """A path as a user types it from here."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def write_text(path: Path, text: str) -> None:
    """Puts `text` into the file at `path`, whole or not at all; makes the folder when it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())  # else a power cut can leave the new name with no content
        os.chmod(temporary, 0o644)  # mkstemp's own mode keeps others from reading it
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as JSON that every reader takes: a number that is not finite becomes null."""
    write_text(path, json.dumps(plain(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """The content of a JSON file; None when the file is missing."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def plain(value: Any) -> Any:
    """`value` in JSON's own types: NumPy numbers and arrays, tuples and paths converted, NaN and infinity as None."""
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(entry) for entry in value]
    if hasattr(value, "tolist"):  # NumPy
        return plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | bool | int):
        return value
    return str(value)


def as_json(value: Any) -> str:
    """`value` as one line of JSON."""
    return json.dumps(plain(value), ensure_ascii=False)


def as_cell(value: Any) -> str:
    """A setting as a cell of a table: a word as it is, else JSON, so that `from_cell` gives the same value back."""
    if isinstance(value, str) and value != "":
        try:
            json.loads(value)
        except ValueError:
            return value
    return as_json(value)


def from_cell(cell: str) -> Any:
    """The setting that `as_cell` wrote."""
    try:
        return json.loads(cell)
    except ValueError:
        return cell


def read_csv(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file; empty when the file is missing. A last line that a crash cut off is left out."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        text = file.read()
    whole = text[: text.rfind("\n") + 1]
    return list(csv.DictReader(io.StringIO(whole, newline=""), restval=""))


def csv_text(columns: Sequence[str], rows: Iterable[Mapping[str, Any]], header: bool = True) -> str:
    """`rows` as CSV; a missing cell is empty."""
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, fieldnames=list(columns), restval="", lineterminator="\n")
    if header:
        writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def _write_csv(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    write_text(path, csv_text(columns, rows))


def _blank(value: Any) -> Any:
    """A cell of trials.csv: nothing for what is unknown."""
    return "" if value is None or (isinstance(value, float) and not math.isfinite(value)) else value
