"""Trains the only trial of a sweep in this process: no worker process starts, and usually no Ray.

It does what Tune's controller does, and uses Tune's own parts: its record of a trial, its management of checkpoints,
and `Trainable.train`. So results, rows of progress.csv and names of checkpoints are the same as with Tune.
"""

from __future__ import annotations

import signal
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from ray.tune.callback import CallbackList
from ray.tune.error import TuneError
from ray.tune.experiment import Trial as TuneTrial

from marl_tune.config.errors import OtherVersion
from marl_tune.config.schema.sweep import SweepConfig
from marl_tune.results.callback import SweepCallback
from marl_tune.results.checkpoint_files import reading
from marl_tune.results.run_folder import RunFolder
from marl_tune.search.stopping import SweepStopper
from marl_tune.sweep.in_process_trial import InProcess, Known, Record

Handler = Callable[[int, FrameType | None], object] | int | None  # of a signal
SAME_S = 1.0  # signals within so many seconds count as one: `timeout` signals a process and then its process group


def train(sweep: SweepConfig, run: RunFolder, callbacks: Sequence[SweepCallback]) -> tuple[list[TuneTrial], bool]:
    """Trains until the trial has ended or the user interrupts. Continues from the newest checkpoint in the folder.

    Returns:
        The trial, and whether a signal ended it.
    """
    loop = _Loop(sweep, Record(sweep, run), callbacks)
    with _Interrupts() as interrupts:
        loop.run(interrupts)
    return [loop.record], interrupts.happened


class _Interrupts:
    """Handles SIGINT and SIGTERM: after the first the iteration is finished and saved; the second stops at once."""

    def __init__(self) -> None:
        self.happened = False
        self._first = 0.0
        self._found: dict[int, Handler] = {}  # signal -> the handler that was there before

    def __enter__(self) -> _Interrupts:
        if threading.current_thread() is threading.main_thread():
            self._found = {number: signal.signal(number, self._take) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def _take(self, number: int, frame: FrameType | None) -> None:
        if not self.happened:
            self.happened, self._first = True, time.monotonic()
        elif time.monotonic() - self._first > SAME_S:
            raise KeyboardInterrupt

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        for number, handler in self._found.items():
            signal.signal(number, handler)
        return kind is KeyboardInterrupt and self.happened


class _Loop:
    """From the trial's newest checkpoint to its end or an interruption."""

    def __init__(self, sweep: SweepConfig, record: Record, callbacks: Sequence[SweepCallback]) -> None:
        self.record = record
        self._sweep = sweep
        self._listeners, self._callbacks = list(callbacks), CallbackList(list(callbacks))
        self._stopper = SweepStopper(sweep.stop, sweep.search.metric, sweep.search.mode)
        self._trial: InProcess | None = None  # None before the first iteration and after a failure
        self._steps = 0  # iterations of the loop, which callbacks are told

    def run(self, interrupts: _Interrupts) -> None:
        """Trains. At the end the record's status is TERMINATED, ERROR, or PAUSED after an interruption."""
        record = self.record
        self._callbacks.setup()
        self._take_up(record.load())
        try:
            if record.last_result.get("done"):  # the process was killed after the trial had ended
                record.set_status(TuneTrial.TERMINATED)
            else:
                record.set_status(TuneTrial.RUNNING)
                self._tell("on_trial_start")
            while record.status == TuneTrial.RUNNING and not interrupts.happened:
                self._step()
                self._callbacks.on_step_end(iteration=self._steps, trials=[record])
            if record.status == TuneTrial.RUNNING and not self._is_saved():
                self._save()
        finally:
            if record.status == TuneTrial.RUNNING:
                record.set_status(TuneTrial.PAUSED)
            self._stop()
            self._callbacks.on_experiment_end(trials=[record])

    def _take_up(self, known: Known | None) -> None:
        """Restores the states that the stopper and the callbacks had at the newest checkpoint."""
        if known is None:
            return
        with reading(Path(self.record.checkpoint.path)):
            self._stopper.set_state(known["stopper"])
            for listener, state in zip(self._listeners, known["callbacks"], strict=True):
                if state is not None:
                    listener.set_state(state)

    def _step(self) -> None:
        """One iteration. Any error is a failure of the trial, except that its checkpoint cannot be read."""
        self._steps += 1
        try:
            self._take(self._living().train())
        except OtherVersion:
            raise
        except Exception:
            self._fail(traceback.format_exc())

    def _living(self) -> InProcess:
        """The trial; when there is none, a new one that continues from the newest checkpoint."""
        if self._trial is None:
            self._trial = InProcess(self._sweep, self.record.trial_id)
            if self.record.latest_checkpoint_result is not None:
                self._trial.restore(self.record.latest_checkpoint_result)
        return self._trial

    def _take(self, result: dict[str, Any]) -> None:
        """Passes a result to the callbacks, saves a checkpoint where one is due, and ends the trial after the last."""
        record = self.record
        result["done"] = self._stopper(record.trial_id, result) or self._stopper.stop_all()
        self._tell("on_trial_result", result=result)
        record.update_last_result(result)
        if record.should_checkpoint():
            self._save()
        if result["done"]:
            self._tell("on_trial_complete")
            record.set_status(TuneTrial.TERMINATED)

    def _fail(self, error: str) -> None:
        self._stop()
        self.record.handle_error(TuneError(error))
        if self.record.should_recover():
            self._tell("on_trial_recover")
        else:
            self._tell("on_trial_error")
            self.record.set_status(TuneTrial.ERROR)

    def _is_saved(self) -> bool:
        """Whether the newest checkpoint is of the newest iteration."""
        newest = self.record.latest_checkpoint_result
        saved = 0 if newest is None else newest.metrics["training_iteration"]
        return self._trial is None or self._trial.iteration == saved

    def _save(self) -> None:
        assert self._trial is not None
        states = [listener.get_state() for listener in self._listeners]
        self.record.save(self._trial, {"stopper": self._stopper.get_state(), "callbacks": states})
        self._tell("on_checkpoint", checkpoint=self.record.checkpoint)

    def _stop(self) -> None:
        if self._trial is not None:
            trial, self._trial = self._trial, None
            trial.stop()

    def _tell(self, event: str, **info: Any) -> None:
        getattr(self._callbacks, event)(iteration=self._steps, trials=[self.record], trial=self.record, **info)
