"""The trial that is trained in this process: Tune's record of it, its checkpoints on disk, and the trainable.

A checkpoint's folder also contains `state.json`: the result of its iteration, and the states of stopper and callbacks.
The folder is written under another name and then renamed, so a resumed run finds all of it or nothing.
"""

from __future__ import annotations

import json
import shutil
import uuid
from pathlib import Path
from typing import Any

from ray.train._internal.session import _TrainingResult
from ray.train._internal.storage import StorageContext
from ray.tune import Checkpoint
from ray.tune.experiment import Trial as TuneTrial

from marl_tune.config import convert
from marl_tune.config.schema.sweep import SweepConfig
from marl_tune.results import checkpoint_files, checkpoint_folder
from marl_tune.results.run_folder import RunFolder
from marl_tune.trial import checkpoint
from marl_tune.trial.trial import Overrides, Trial

STATE = "state.json"
Known = dict[str, Any]  # what a later session needs besides the checkpoint, in JSON's types


class InProcess(Trial):
    """The trainable outside Tune. It is given its id, and has no log folder."""

    def __init__(self, sweep: SweepConfig, trial_id: str) -> None:
        self._own_id, self._whole = trial_id, convert.to_dict(sweep)
        super().__init__(config={})

    def setup(self, config: Overrides, sweep: dict[str, Any] | None = None, pool: str | None = None) -> None:
        """Called by Tune's constructor; the sweep is known already."""
        super().setup(config, self._whole)

    @property
    def trial_id(self) -> str:
        """The id that the constructor was given."""
        return self._own_id

    def _setup_logdir(self) -> None:
        self._logdir = None


class Record(TuneTrial):
    """Tune's record of a trial, which callbacks and selection read. Its files are in the run's folder from the start.

    Args:
        sweep: the sweep.
        run: its run's folder. A trial that an earlier session began there is continued.
    """

    def __init__(self, sweep: SweepConfig, run: RunFolder) -> None:
        begun = [place.name for place in run.tune.glob("*") if place.is_dir()]
        trial_id = begun[0] if begun else f"{uuid.uuid4().hex[:5]}_00000"
        super().__init__(
            "Trial",
            stub=True,  # the name stands for no class that Tune would have to find
            trial_id=trial_id,
            storage=StorageContext(str(run.path), run.tune.name, trial_dir_name=trial_id),
            checkpoint_config=checkpoint.retention(sweep.checkpoint),
            max_failures=sweep.cluster.max_failures,
        )
        self.folder = Path(self.path)
        self.folder.mkdir(exist_ok=True)

    @property
    def local_path(self) -> str:
        """The trial's folder; Tune's own staging folder would belong to Ray."""
        return self.path

    def load(self) -> Known | None:
        """Registers the checkpoints of earlier sessions.

        Returns:
            The `known` of the newest checkpoint; None when there is none.
        """
        known = None
        for place in sorted(self.folder.glob("checkpoint_*")):
            if not checkpoint_folder.is_whole(place) or not (place / STATE).is_file():
                shutil.rmtree(place)  # the process was killed while it deleted this checkpoint
                continue
            with checkpoint_files.reading(place):
                state = json.loads((place / STATE).read_text())
                self.storage.current_checkpoint_index = int(place.name.rsplit("_", 1)[-1]) - 1
                self._add(place, state["result"])
                self.run_metadata.last_result, known = state["result"], state["known"]
        return known

    def save(self, trial: InProcess, known: Known) -> None:
        """Writes a checkpoint of the trial as it is now, and deletes the oldest beyond `checkpoint.num_to_keep`.

        Args:
            trial: has trained at least once.
            known: what else a later session needs, in JSON's types.
        """
        place = self.folder / StorageContext._make_checkpoint_dir_name(self.storage.current_checkpoint_index + 1)
        draft = self.folder / f".{place.name}"
        shutil.rmtree(draft, ignore_errors=True)
        result = trial.save(str(draft)).metrics
        (draft / STATE).write_text(json.dumps({"result": result, "known": known}))
        draft.rename(place)
        self._add(place, result)

    def _add(self, place: Path, result: dict[str, Any]) -> None:
        self.on_checkpoint(_TrainingResult(checkpoint=Checkpoint(str(place)), metrics=result))
