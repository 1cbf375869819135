"""Weights & Biases: one run a trial, all written by the driver's process, and no account needed.

The rows' step is the number that `progress_csv.ProgressCsv` gives a result: it never goes backwards. (Ray's
own callback starts a process a trial and logs by `training_iteration`, which jumps when population based training
copies another trial; W&B drops a row whose step goes back.)

Offline runs lie in `wandb/` of the run's folder; `wandb sync RUN/wandb/offline-run-*` uploads them. A resumed sweep
goes on with the same run ids: online, W&B appends to the run; offline, every session writes a folder of its own that
carries the same id, and `wandb sync` appends them in the order of their start. Rows that a crash made worthless stay
in W&B, beside those that replace them and that have higher numbers.
"""

from __future__ import annotations

import hashlib
import math
import os
import socket
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import wandb
from ray.tune.experiment import Trial
from wandb.sdk import wandb_setup
from wandb.sdk.lib.wbauth import read_netrc_auth

from marl_tune.results.callback import SweepCallback, searched
from marl_tune.results.files import plain, read_json, write_json
from marl_tune.results.metrics import ROW, flat_metrics
from marl_tune.results.records import LineageRecord
from marl_tune.results.run_folder import RunFolder

INIT_TIMEOUT_S = 30.0  # a server that does not answer must not hold the sweep up for longer
_FROM_ENVIRONMENT = {"run": "online", "dryrun": "offline"}  # old words that WANDB_MODE still takes


def wandb_mode(wanted: str) -> str:
    """What `auto | online | offline` means here: `online`, `offline`, or `disabled` where WANDB_MODE says so.

    `auto` is what WANDB_MODE says, or else online where a key is set, or else offline. Asks nobody and sends nothing.
    """
    if wanted != "auto":
        return wanted
    asked = os.environ.get("WANDB_MODE")
    if asked:
        return _FROM_ENVIRONMENT.get(asked, asked)
    return "online" if has_credentials() else "offline"


def has_credentials() -> bool:
    """Whether a W&B key is set: WANDB_API_KEY, an identity token's file, W&B's settings, `wandb login` (netrc)."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    settings = wandb_setup.singleton().settings  # unlike wandb.setup(), starts no process
    return bool(settings.api_key) or read_netrc_auth(host=settings.base_url) is not None


class WandbCallback(SweepCallback):
    """One W&B run a trial: every result as a row, the resolved config, the searched values and the trial's lineage.

    Args:
        folder: the run's folder; its name and time name the W&B group.
        resolve: searched values of a trial -> its whole config as a plain dict.
        keys: the searched dotted keys.
        project, entity, tags: as W&B has them; entity None is the account's own.
        mode: auto | online | offline; see `wandb_mode`.

    W&B is a copy of results that stand in the run's folder, so trouble with it warns and never stops a sweep: when a
    run cannot be started online, this and all later ones are written offline.
    """

    def __init__(
        self,
        folder: RunFolder,
        resolve: Callable[[dict[str, Any]], dict[str, Any]],
        keys: Sequence[str],
        project: str,
        entity: str | None = None,
        tags: Sequence[str] = (),
        mode: str = "auto",
    ) -> None:
        self._folder = folder
        self._resolve = resolve
        self._keys = list(keys)
        self._place = {"project": project, "entity": entity, "tags": list(tags), "group": folder.title}
        self._mode: Any = wandb_mode(mode)  # one of the words of wandb.init
        if self._mode != "online":  # else W&B reports on itself to its makers, also when it is offline
            os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        self._runs: dict[str, Any] = {}  # trial -> open W&B run
        self._values: dict[str, dict[str, Any]] = {}  # trial -> its searched values

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_runs": {}}  # Tune pickles its callbacks; open runs belong to this process

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self._open(trial)

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        run = self._open(trial)
        if run is None:
            return
        row = {name: value for name, value in flat_metrics(result).items() if not math.isnan(value)}
        step = max(result[ROW], run.step)  # W&B would drop a lower one
        self._guarded(trial.trial_id, lambda: run.log({ROW: result[ROW], **row}, step=step, commit=True))

    def on_exploit(
        self, trial_id: str, donor_id: str, iteration: int, old: Mapping[str, Any], new: Mapping[str, Any]
    ) -> None:
        run = self._runs.get(trial_id)
        if run is None:  # `_open` will read the same from lineage.csv and from the trial
            return
        self._values[trial_id].update(new)
        lineage = [*run.config["lineage"], _entry(LineageRecord(iteration, donor_id, trial_id, dict(old), dict(new)))]
        settings = {**self._settings(self._values[trial_id]), "lineage": lineage}
        self._guarded(trial_id, lambda: run.config.update(settings, allow_val_change=True))

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self._finish(trial.trial_id, exit_code=0)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self._finish(trial.trial_id, exit_code=1)

    def on_experiment_end(self, trials: list[Trial], **info: Any) -> None:
        for trial_id in list(self._runs):  # trials that were interrupted
            self._finish(trial_id, exit_code=1)

    def _open(self, trial: Trial) -> Any | None:
        """The trial's run, started or taken up again on the first call; None when W&B refused even an offline one."""
        trial_id = trial.trial_id
        if trial_id not in self._runs:
            values = searched(trial, self._keys)
            lineage = [_entry(record) for record in self._folder.read_lineage() if record.to == trial_id]
            manifest = read_json(self._folder.manifest) or {}
            settings = {
                "trial": trial_id,
                **self._settings(values),
                "lineage": lineage,
                "manifest": {key: manifest[key] for key in ("command", "git", "packages", "host") if key in manifest},
            }
            self._values[trial_id] = values
            self._runs[trial_id] = self._init(trial_id, settings)
        return self._runs[trial_id]

    def _init(self, trial_id: str, settings: dict[str, Any]) -> Any | None:
        words: dict[str, Any] = {**self._place, "id": self._run_id(trial_id), "name": trial_id, "config": settings}
        words |= {"dir": self._folder.path, "settings": _settings_of_run(), "resume": "allow", "reinit": "create_new"}
        while True:
            try:
                run = wandb.init(**words, mode=self._mode)
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
        ids = read_json(self._folder.wandb_runs) or {}
        if trial_id not in ids:
            words = f"{socket.gethostname()}/{self._folder.title}/{trial_id}"
            ids[trial_id] = hashlib.sha256(words.encode()).hexdigest()[:16]
            write_json(self._folder.wandb_runs, ids)
        return str(ids[trial_id])

    def _settings(self, values: dict[str, Any]) -> dict[str, Any]:
        return {**plain(self._resolve(dict(values))), "overrides": plain(values)}

    def _finish(self, trial_id: str, exit_code: int) -> None:
        run = self._runs.pop(trial_id, None)
        if run is not None:
            self._guarded(trial_id, lambda: run.finish(exit_code=exit_code))

    def _guarded(self, trial_id: str, action: Callable[[], Any]) -> None:
        try:
            action()
        except (wandb.Error, OSError) as error:
            warnings.warn(f"W&B stopped logging trial {trial_id}: {error}", stacklevel=2)
            self._runs[trial_id] = None


def _entry(record: LineageRecord) -> dict[str, Any]:
    """An exploit as the config of its run shows it."""
    return {"iteration": record.step, "from": record.source, "old": plain(record.old), "new": plain(record.new)}


def _settings_of_run() -> wandb.Settings:
    """Quiet and light; the driver's machine is the same in every run, so its load is left out."""
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
        x_transaction_log_flush_interval=5.0,  # seconds of rows that a power cut may cost
    )
