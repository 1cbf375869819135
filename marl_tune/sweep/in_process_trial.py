"""The one trial that is trained in this process: Tune's record of it, its checkpoints on disk, and the trainable.

A checkpoint's folder also holds `state.json`: the result that it belongs to, and what else was known then. It is
written beside its place and moved there, so that one step commits all that a resumed run starts from.
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
from marl_tune.trial.trial import Trial

STATE = "state.json"


class InProcess(Trial):
    """The trainable outside Tune: it is told its id, and has no folder of its own."""

    def __init__(self, sweep: SweepConfig, trial_id: str) -> None:
        self._own_id, self._whole = trial_id, convert.to_dict(sweep)
        super().__init__(config={})

    def setup(self, config: dict[str, Any], sweep: dict[str, Any] | None = None, pool: str | None = None) -> None:
        super().setup(config, self._whole)

    @property
    def trial_id(self) -> str:
        return self._own_id

    def _setup_logdir(self) -> None:
        self._logdir = None


class Record(TuneTrial):
    """Tune's record, which callbacks and selection read, with its files in the run's folder at once.

    Args:
        sweep: the sweep.
        run: its run's folder; a trial that an earlier session began there is taken up again.
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
        return self.path  # Tune's staging folder is one of Ray's

    def load(self) -> dict[str, Any] | None:
        """Takes in the checkpoints of earlier sessions.

        Returns:
            What was `known` when the newest was saved; None when there is none.
        """
        known = None
        for place in sorted(self.folder.glob("checkpoint_*")):
            if not checkpoint_folder.is_whole(place) or not (place / STATE).is_file():
                shutil.rmtree(place)  # a kill came while it was deleted
                continue
            with checkpoint_files.reading(place):
                state = json.loads((place / STATE).read_text())
                self.storage.current_checkpoint_index = int(place.name.rsplit("_", 1)[-1]) - 1
                self._add(place, state["result"])
                self.run_metadata.last_result, known = state["result"], state["known"]
        return known

    def save(self, trial: InProcess, known: dict[str, Any]) -> None:
        """Writes a checkpoint of the trial as it is now, and deletes the oldest beyond `checkpoint.num_to_keep`.

        Args:
            trial: has trained at least once since it was made.
            known: what else a later session has to know, in JSON's types.
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
