"""Weights & Biases: one run for each trial, all written by the driver's process. No account is needed.

The step of a row is the number that `progress_csv.ProgressCsv` gives a result, because it never goes back: W&B drops a
row whose step does. Ray's own callback starts a process for each trial and logs by `training_iteration`, which jumps
when population based training copies another trial.

Offline runs lie in `wandb/` of the run's folder; `wandb sync RUN/wandb/offline-run-*` uploads them. A resumed sweep
uses the same run ids. Online, W&B appends to the run. Offline, every session writes a folder with the same id, and
`wandb sync` appends them in the order of their start. Rows that a crash has undone stay in W&B; the rows that replace
them have higher numbers.
"""

from __future__ import annotations

import hashlib
import math
import os
import socket
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, TypeAlias, TypedDict, cast

import wandb
from ray.tune.experiment import Trial
from wandb import Run
from wandb.sdk import wandb_setup
from wandb.sdk.lib.wbauth import read_netrc_auth

from marl_tune.results.callback import SweepCallback, searched
from marl_tune.results.metrics import ROW, Result, flat_metrics, row_of
from marl_tune.results.records import LineageRecord
from marl_tune.results.run_folder import RunFolder
from marl_tune.results.text_files import plain, read_json, write_json

INIT_TIMEOUT_S = 30.0  # a server that does not answer must not hold the sweep up for longer
_FROM_ENVIRONMENT = {"run": "online", "dryrun": "offline"}  # old words that WANDB_MODE still accepts

Mode: TypeAlias = Literal["online", "offline", "disabled", "shared"]  # of wandb.init


def wandb_mode(wanted: str) -> Mode:
    """The mode of wandb.init that `wanted` (auto | online | offline) stands for on this machine.

    `auto` is the value of WANDB_MODE, if it is set. Else it is online if a W&B key is set, and offline if not. Nothing
    is sent, and no question is asked.
    """
    if wanted != "auto":
        return cast(Mode, wanted)
    asked = os.environ.get("WANDB_MODE")
    if asked:
        return cast(Mode, _FROM_ENVIRONMENT.get(asked, asked))
    return "online" if has_credentials() else "offline"


def has_credentials() -> bool:
    """Whether a W&B key is set: WANDB_API_KEY, an identity token's file, W&B's settings, `wandb login` (netrc)."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    settings = wandb_setup.singleton().settings  # unlike wandb.setup(), starts no process
    return bool(settings.api_key) or read_netrc_auth(host=settings.base_url) is not None


class Place(TypedDict):
    """Where W&B puts the runs of a sweep."""

    project: str
    entity: str | None
    tags: list[str]
    group: str


class WandbCallback(SweepCallback):
    """One W&B run for each trial: its results as rows, its resolved config, its searched values and its lineage.

    W&B has a copy of results that are also in the run's folder. So an error of W&B is a warning and never stops a
    sweep. If a run cannot be started online, it and all later runs are written offline.

    Args:
        folder: the run's folder; its name and time name the W&B group.
        resolve: searched values of a trial -> its whole config as a plain dict.
        keys: the searched dotted keys.
        project: W&B's project.
        entity: W&B's user or team; None: the default of the account.
        tags: W&B's tags of every run.
        mode: auto | online | offline; see `wandb_mode`.
    """

    def __init__(
        self,
        folder: RunFolder,
        resolve: Callable[[dict[str, object]], dict[str, object]],
        keys: Sequence[str],
        project: str,
        entity: str | None = None,
        tags: Sequence[str] = (),
        mode: str = "auto",
    ) -> None:
        self._folder = folder
        self._resolve = resolve
        self._keys = list(keys)
        self._place: Place = {"project": project, "entity": entity, "tags": list(tags), "group": folder.title}
        self._mode = wandb_mode(mode)
        if self._mode != "online":  # else W&B sends reports about its own errors, even when it is offline
            os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        self.runs: dict[str, Run | None] = {}  # trial -> open W&B run; None: W&B has failed
        self._values: dict[str, dict[str, object]] = {}  # trial -> its searched values

    def __getstate__(self) -> dict[str, object]:
        return {**vars(self), "runs": {}}  # Tune pickles its callbacks; open runs belong to this process

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: object) -> None:
        """Starts the trial's run."""
        self._open(trial)

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: Result, **info: object
    ) -> None:
        """Logs the result's numbers as a row."""
        run = self._open(trial)
        if run is None:
            return
        number = row_of(result)
        row = {name: value for name, value in flat_metrics(result).items() if not math.isnan(value)}
        step = max(number, run.step)  # W&B would drop a lower one
        self._guarded(trial.trial_id, lambda: run.log({ROW: number, **row}, step=step, commit=True))

    def on_exploit(
        self, trial_id: str, donor_id: str, iteration: int, old: Mapping[str, object], new: Mapping[str, object]
    ) -> None:
        """Adds the exploit to the lineage in the run's config, and changes the settings there."""
        run = self.runs.get(trial_id)
        if run is None:  # `_open` will read the same from lineage.csv and from the trial
            return
        self._values[trial_id].update(new)
        lineage = [*run.config["lineage"], _entry(LineageRecord(iteration, donor_id, trial_id, dict(old), dict(new)))]
        settings = {**self._settings(self._values[trial_id]), "lineage": lineage}
        self._guarded(trial_id, lambda: run.config.update(settings, allow_val_change=True))

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: object) -> None:
        """Ends the trial's run."""
        self._finish(trial.trial_id, exit_code=0)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: object) -> None:
        """Ends the trial's run as a failed one."""
        self._finish(trial.trial_id, exit_code=1)

    def on_experiment_end(self, trials: list[Trial], **info: object) -> None:
        """Ends the runs of interrupted trials."""
        for trial_id in list(self.runs):
            self._finish(trial_id, exit_code=1)

    def _open(self, trial: Trial) -> Run | None:
        """The trial's run, which the first call starts or resumes; None if W&B refused even an offline run."""
        trial_id = trial.trial_id
        if trial_id not in self.runs:
            values = searched(trial, self._keys)
            lineage = [_entry(record) for record in self._folder.read_lineage() if record.to == trial_id]
            manifest: dict[str, object] = read_json(self._folder.manifest) or {}
            settings = {
                "trial": trial_id,
                **self._settings(values),
                "lineage": lineage,
                "manifest": {key: manifest[key] for key in ("command", "git", "packages", "host") if key in manifest},
            }
            self._values[trial_id] = values
            self.runs[trial_id] = self._init(trial_id, settings)
        return self.runs[trial_id]

    def _init(self, trial_id: str, settings: dict[str, object]) -> Run | None:
        while True:
            try:
                run = wandb.init(
                    **self._place,
                    id=self._run_id(trial_id),
                    name=trial_id,
                    config=settings,
                    dir=self._folder.path,
                    settings=_settings_of_run(),
                    resume="allow",
                    reinit="create_new",
                    mode=self._mode,
                )
            except (wandb.Error, OSError) as error:
                if self._mode != "online":
                    warnings.warn(f"W&B cannot log trial {trial_id}: {error}", stacklevel=2)
                    return None
                warnings.warn(f"W&B cannot be reached, its runs are now written offline: {error}", stacklevel=2)
                self._mode = "offline"
            else:
                run.define_metric(ROW)
                run.define_metric("*", step_metric=ROW)
                return run

    def _run_id(self, trial_id: str) -> str:
        """The same id for the same trial in every session; kept in the run's folder, so that the folder may move."""
        ids: dict[str, str] = read_json(self._folder.wandb_runs) or {}
        if trial_id not in ids:
            words = f"{socket.gethostname()}/{self._folder.title}/{trial_id}"
            ids[trial_id] = hashlib.sha256(words.encode()).hexdigest()[:16]
            write_json(self._folder.wandb_runs, ids)
        return ids[trial_id]

    def _settings(self, values: dict[str, object]) -> dict[str, object]:
        """The config of a run: all settings of the trial, and beside them its searched ones."""
        resolved = {key: plain(value) for key, value in self._resolve(dict(values)).items()}
        return {**resolved, "overrides": plain(values)}

    def _finish(self, trial_id: str, exit_code: int) -> None:
        run = self.runs.pop(trial_id, None)
        if run is not None:
            self._guarded(trial_id, lambda: run.finish(exit_code=exit_code))

    def _guarded(self, trial_id: str, action: Callable[[], object]) -> None:
        """Calls `action`; if W&B fails, warns and logs no more of this trial."""
        try:
            action()
        except (wandb.Error, OSError) as error:
            warnings.warn(f"W&B stopped logging trial {trial_id}: {error}", stacklevel=2)
            self.runs[trial_id] = None


def _entry(record: LineageRecord) -> dict[str, object]:
    """An exploit as it stands in the config of its run."""
    return {"iteration": record.step, "from": record.source, "old": plain(record.old), "new": plain(record.new)}


def _settings_of_run() -> wandb.Settings:
    """Settings that make a run quiet and cheap. The machine's load is left out: it is the same in every run."""
    return wandb.Settings(
        console="off",
        silent=True,
        disable_code=True,
        disable_git=True,
        init_timeout=INIT_TIMEOUT_S,
        symlink=False,
        x_disable_machine_info=True,
        x_disable_meta=True,
        x_disable_stats=True,
        x_save_requirements=False,
        x_transaction_log_flush_interval=5.0,  # seconds between two writes; a power cut loses the rows in between
    )
