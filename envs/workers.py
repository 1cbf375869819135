"""The copies of any world, shared out among processes that step at the same time."""

import os
import pickle
import signal
import socket
import subprocess
import sys
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from multiprocessing.reduction import send_handle
from typing import Any

import numpy as np

from envs.shared_arrays import make_file, map_file
from envs.worker_process import DONE, FAILED, RETURNED, STEP, UNAVAILABLE
from envs.world import Observations, StateUnavailable, Step, World, resolve_reset

PATIENCE = 5.0  # seconds that workers have to end by themselves before they are killed
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
# set where they are not: the workers are the threads, and a pool of more in each only slows its start


class WorkerError(RuntimeError):
    """A worker's copies raised an exception, whose traceback the text holds, or its process died."""


class _Worker:
    """A process with some of the copies, seen from the process that starts it.

    It is a program of its own and no `multiprocessing.Process`: that would import the main module of whoever starts it,
    in a trial all of Ray. And it has its own process group, so that Ctrl-C in a terminal does not reach it.
    """

    def __init__(self, copies: range):
        self.copies = copies
        ours, theirs = socket.socketpair()
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "envs.worker_process", str(theirs.fileno())],
                env={**ONE_THREAD, **os.environ, "PYTHONPATH": os.pathsep.join(p or os.getcwd() for p in sys.path)},
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                process_group=0,
            )
        self.connection = Connection(ours.detach())

    def send(self, message: bytes) -> None:
        """Sends a call. Raises WorkerError if the process has died."""
        try:
            self.connection.send_bytes(message)
        except OSError as error:
            raise self._death() from error

    def send_file(self, file: int) -> None:
        """Hands over the descriptor of a file. Raises WorkerError if the process has died."""
        try:
            send_handle(self.connection, file, self.process.pid)
        except OSError as error:
            raise self._death() from error

    def receive(self) -> tuple[str, Any]:
        """The outcome of the call: its kind, `RETURNED` or `UNAVAILABLE`, and its value. Raises WorkerError."""
        try:
            message = self.connection.recv_bytes()
        except (EOFError, OSError) as error:
            raise self._death() from error
        if message == DONE:
            return RETURNED, None
        kind, value = pickle.loads(message)
        if kind == FAILED:
            raise WorkerError(f"{self} failed\n\n{value}")
        return kind, value

    def _death(self) -> WorkerError:
        try:
            status = self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            return WorkerError(f"{self} does not answer")
        cause = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with exit code {status}"
        return WorkerError(f"{self} {cause}")

    def __str__(self) -> str:
        return f"the worker process {self.process.pid} with copies {self.copies.start} to {self.copies.stop - 1}"


class WorkerWorld(World):
    """B copies of a world in W processes, in contiguous shares of nearly the same size.

    It behaves as the world itself would with all copies in one process. A step costs two short messages a worker;
    actions, observations, rewards and ends lie in memory that all share. A worker imports what the world needs, and
    nothing else of whoever started it. The workers end when the world is closed or collected as garbage, when one of
    them fails, when a call is interrupted, and when the process that made the world dies, however it dies.

    Args:
        make: num_envs -> a world. It is pickled, so it must not come from a script's `__main__`.
        num_envs: B.
        workers: W, from 1 to B.

    Raises:
        ValueError: for another number of workers.
        WorkerError: from any method, if a worker fails; the world is then closed.
    """

    def __init__(self, make: Callable[[int], World], num_envs: int, workers: int):
        if not 1 <= workers <= num_envs:
            raise ValueError(f"env.workers must be from 1 to the {num_envs} copies of the world, got {workers}")
        self.num_envs = num_envs
        self._workers: list[_Worker] = []
        self._finalizer = weakref.finalize(self, _stop, self._workers)
        try:
            for index in range(workers):
                self._workers.append(_Worker(range(num_envs * index // workers, num_envs * (index + 1) // workers)))
            self._agree(make)
        except BaseException:
            self.close()
            raise

    def _agree(self, make: Callable[[int], World]) -> None:
        """Tells the workers what to make, learns its groups from them, and hands them the memory."""
        for worker in self._workers:
            worker.send(pickle.dumps((make, worker.copies, self.num_envs)))
        groups = [worker.receive()[1] for worker in self._workers]
        self.groups = groups[0]
        file = make_file(self.groups, self.num_envs)
        for worker in self._workers:
            worker.send_file(file)
        self._shared = map_file(file, self.groups, self.num_envs)

    def reset(self, seeds: Sequence[int | None] | None = None, copies: np.ndarray | None = None) -> Observations:
        """See `World.reset`."""
        wanted, calls = resolve_reset(self.num_envs, seeds, copies), {}
        for worker in self._workers:
            own = [(copy - worker.copies.start, seed) for copy, seed in wanted if copy in worker.copies]
            if own:
                calls[worker] = ("reset", [seed for _, seed in own], np.array([copy for copy, _ in own]))
        self._call(calls)
        return self._shared.read_observations()

    def step(self, actions: dict[str, np.ndarray]) -> Step:
        """See `World.step`. Raises ValueError for actions of the wrong shape."""
        for name, array in self._shared.actions.items():
            if np.shape(actions[name]) != array.shape:
                raise ValueError(f"actions of {name} must have the shape {array.shape}, got {np.shape(actions[name])}")
            array[...] = actions[name]
        self._exchange(dict.fromkeys(self._workers, STEP))
        return self._shared.read()

    def episode_metrics(self, copies: np.ndarray) -> dict[str, np.ndarray]:
        """See `World.episode_metrics`."""
        calls, places = {}, {}
        for worker in self._workers:
            places[worker] = [place for place, copy in enumerate(copies) if copy in worker.copies]
            if places[worker]:
                calls[worker] = ("call", "episode_metrics", np.asarray(copies)[places[worker]] - worker.copies.start)
        parts = self._call(calls)
        names = set.intersection(*(set(part) for part in parts.values())) if parts else set()
        metrics = {name: np.empty(len(copies)) for name in next(iter(parts.values()), {}) if name in names}
        for worker, part in parts.items():
            for name, values in metrics.items():
                values[places[worker]] = part[name]
        return metrics

    def render(self, copy: int = 0) -> np.ndarray:
        """See `World.render`."""
        worker = next(worker for worker in self._workers if copy in worker.copies)
        return self._call({worker: ("call", "render", copy - worker.copies.start)})[worker]

    def get_state(self) -> dict[str, Any]:
        """See `World.get_state`."""
        return {"shares": list(self._call(dict.fromkeys(self._workers, ("call", "get_state"))).values())}

    def set_state(self, state: dict[str, Any]) -> None:
        """See `World.set_state`. Raises ValueError for the state of a world with another number of workers."""
        shares = state["shares"]
        if len(shares) != len(self._workers):
            raise ValueError(f"state of another world: {len(shares)} workers, here {len(self._workers)}")
        self._call({w: ("call", "set_state", share) for w, share in zip(self._workers, shares, strict=True)})

    def close(self) -> None:
        """Ends the workers and waits for them; one that is in the middle of a long step is killed."""
        self._finalizer()

    def _call(self, calls: Mapping[_Worker, tuple]) -> dict[_Worker, Any]:
        """Has some workers call a method of theirs, given with its arguments; returns what each returned."""
        outcomes = self._exchange({worker: pickle.dumps((name, args)) for worker, (name, *args) in calls.items()})
        for kind, value in outcomes.values():
            if kind == UNAVAILABLE:
                raise StateUnavailable(value)
        return {worker: value for worker, (_, value) in outcomes.items()}

    def _exchange(self, messages: Mapping[_Worker, bytes]) -> dict[_Worker, tuple[str, Any]]:
        """One message to each of some workers, all of which then work at once, and what they answer."""
        if not self._finalizer.alive:
            raise RuntimeError("the world is closed")
        try:
            for worker, message in messages.items():
                worker.send(message)
            return {worker: worker.receive() for worker in messages}
        except BaseException:  # a keyboard interrupt too: answers that nobody has read would be taken for later ones
            self.close()
            raise


def _stop(workers: list[_Worker]) -> None:
    """Ends processes: they see that their socket is closed once they have done what they are at."""
    for worker in workers:
        worker.connection.close()
    deadline = time.monotonic() + PATIENCE
    for worker in workers:
        try:
            worker.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            worker.process.kill()
            worker.process.wait()
    workers.clear()
