"""A world whose copies are distributed over several processes, which step at the same time."""

import os
import pickle
import signal
import socket
import subprocess
import sys
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from multiprocessing.connection import Connection
from multiprocessing.reduction import send_handle
from typing import Any

import numpy as np

from marl_tune.envs.agent_group import Actions, Observations
from marl_tune.envs.groups import checked_actions
from marl_tune.envs.workers.process import DONE, FAILED, RETURNED, STEP, UNAVAILABLE, CopyServer, Outcome, perform
from marl_tune.envs.workers.shared_arrays import SharedArrays, make_file, map_file
from marl_tune.envs.world import StateUnavailable, Step, World, WorldState, resolve_reset

PATIENCE = 5.0  # seconds that workers have to end by themselves; then they are killed
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
# environment variables of the workers, if the user has not set them: more threads in each process only slow its start


class WorkerError(RuntimeError):
    """The copies of a worker raised an exception (its traceback is in the text), or the worker's process died."""


class LocalShare:
    """The copies that the owner of the world steps itself, while the worker processes step theirs."""

    _server: CopyServer  # once the memory is there

    def __init__(self, world: World, copies: range):
        self.world, self.copies = world, copies

    def map(self, shared: SharedArrays) -> None:
        """Sets the memory into which the results are written."""
        self._server = CopyServer(self.world, shared.of(slice(self.copies.start, self.copies.stop)))

    def begin(self, method: str, *args: object) -> None:
        """Notes a call of a method of `CopyServer`. `finish` executes it, after the worker processes have got
        theirs."""
        self._call = method, args

    def finish(self) -> Outcome:
        """Executes the call, and returns its outcome. Raises the errors of the world."""
        method, args = self._call
        return perform(self._server, method, args)


class RemoteShare:
    """A worker process with some of the copies, seen from the process that starts it.

    It is a program of its own, not a `multiprocessing.Process`: that would import the main module of its starter, in a
    trial all of Ray. It has its own process group, so that Ctrl-C in a terminal does not reach it.
    """

    def __init__(self, copies: range):
        self.copies = copies
        ours, theirs = socket.socketpair()
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "marl_tune.envs.workers.process", str(theirs.fileno())],
                env={**ONE_THREAD, **os.environ, "PYTHONPATH": os.pathsep.join(p or os.getcwd() for p in sys.path)},
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                process_group=0,
            )
        self.connection = Connection(ours.detach())

    def make(self, make: Callable[[int], World], num_envs: int) -> None:
        """Tells the process how to make its copies. Raises WorkerError if it has died."""
        self._send(pickle.dumps((make, self.copies, num_envs)))

    def map(self, file: int) -> None:
        """Hands over the descriptor of the shared memory. Raises WorkerError if the process has died."""
        try:
            send_handle(self.connection, file, self.process.pid)
        except OSError as error:
            raise self._death() from error

    def begin(self, method: str, *args: object) -> None:
        """Starts a call of a method of `CopyServer`. Raises WorkerError if the process has died."""
        self._send(STEP if method == "step" else pickle.dumps((method, args)))

    def finish(self) -> Outcome:
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

    def _send(self, message: bytes) -> None:
        try:
            self.connection.send_bytes(message)
        except OSError as error:
            raise self._death() from error

    def _death(self) -> WorkerError:
        try:
            status = self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            return WorkerError(f"{self} does not answer")
        cause = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with exit code {status}"
        return WorkerError(f"{self} {cause}")

    def __str__(self) -> str:
        return f"the worker process {self.process.pid} with copies {self.copies.start} to {self.copies.stop - 1}"


Share = LocalShare | RemoteShare


class WorkerWorld(World):
    """B copies of a world in W processes. Each process has a contiguous share of the copies, all of nearly one size.

    One of the W processes is the one that makes the world: it steps its own share while W - 1 worker processes step
    theirs. With W worker processes, this one would sleep in every step. Waking it up costs more than the work that it
    does between two steps.

    The results are those of the world with all copies in one process. A step costs two short messages per worker.
    Actions, observations, rewards and ends are in memory that all processes share. A worker imports only what the world
    needs. The workers end when the world is closed or garbage-collected, when one share fails, when a call is
    interrupted, and when the process that made the world dies, for whatever reason.

    Args:
        make: num_envs -> a world. It is pickled, so it must not be defined in a script's `__main__`.
        num_envs: B.
        workers: W, from 1 to B.

    Raises:
        ValueError: if `workers` is not in 1..B.
        WorkerError: from each method, if a worker fails. The world is then closed.
    """

    def __init__(self, make: Callable[[int], World], num_envs: int, workers: int):
        if not 1 <= workers <= num_envs:
            raise ValueError(f"env.workers must be from 1 to the {num_envs} copies of the world, got {workers}")
        self.num_envs = num_envs
        self._shares: list[Share] = []
        self._finalizer = weakref.finalize(self, _stop, self._shares)
        bounds = [num_envs * index // workers for index in range(workers + 1)]
        own, *others = (range(start, stop) for start, stop in pairwise(bounds))
        try:
            for copies in others:
                self._shares.append(RemoteShare(copies))
            self._agree(make, own)
        except BaseException:
            self.close()
            raise

    @property
    def processes(self) -> list[subprocess.Popen[bytes]]:
        """The worker processes; none after `close`."""
        return [share.process for share in self._shares if isinstance(share, RemoteShare)]

    def _agree(self, make: Callable[[int], World], own: range) -> None:
        """Tells the workers what to make, makes the own share meanwhile, and hands the shared memory to all."""
        workers = [share for share in self._shares if isinstance(share, RemoteShare)]
        for worker in workers:
            worker.make(make, self.num_envs)
        local = LocalShare(make(len(own)), own)
        self._shares.insert(0, local)
        self.groups, self.own_state_space = local.world.groups, local.world.own_state_space
        for worker in workers:
            worker.finish()  # its copies are made
        file = make_file(self.groups, self.num_envs)
        for worker in workers:
            worker.map(file)
        self._shared = map_file(file, self.groups, self.num_envs)
        local.map(self._shared)
        self._takes_turns = local.world.acting is not None
        self._note_who_acts()

    def _note_who_acts(self) -> None:
        if self._takes_turns:
            self.acting = self._shared.read_acting()

    def reset(self, seeds: Sequence[int | None] | None = None, copies: np.ndarray | None = None) -> Observations:
        """See `World.reset`."""
        wanted, calls = resolve_reset(self.num_envs, seeds, copies), {}
        for share in self._shares:
            own = [(copy - share.copies.start, seed) for copy, seed in wanted if copy in share.copies]
            if own:
                calls[share] = ("reset", [seed for _, seed in own], np.array([copy for copy, _ in own]))
        self._call(calls)
        self._note_who_acts()
        return self._shared.read_observations()

    def step(self, actions: Actions) -> Step:
        """See `World.step`. Raises ValueError for actions of the wrong shape."""
        for group in self.groups:
            self._shared.actions[group.name][...] = checked_actions(group, actions[group.name], self.num_envs)
        self._call(dict.fromkeys(self._shares, ("step",)))
        self._note_who_acts()
        return self._shared.read(self._takes_turns)

    def own_state(self) -> np.ndarray:
        """See `World.own_state`. It is sent as a message, because few worlds have one and only central critics need
        it."""
        return np.concatenate(list(self._call(dict.fromkeys(self._shares, ("call", "own_state"))).values()))

    def episode_metrics(self, copies: np.ndarray) -> dict[str, np.ndarray]:
        """See `World.episode_metrics`."""
        calls, places = {}, {}
        for share in self._shares:
            places[share] = [place for place, copy in enumerate(copies) if copy in share.copies]
            if places[share]:
                calls[share] = ("call", "episode_metrics", np.asarray(copies)[places[share]] - share.copies.start)
        parts = self._call(calls)
        names = set.intersection(*(set(part) for part in parts.values())) if parts else set()
        metrics = {name: np.empty(len(copies)) for name in next(iter(parts.values()), {}) if name in names}
        for share, part in parts.items():
            for name, values in metrics.items():
                values[places[share]] = part[name]
        return metrics

    def render(self, copy: int = 0) -> np.ndarray:
        """See `World.render`."""
        share = next(share for share in self._shares if copy in share.copies)
        return self._call({share: ("call", "render", copy - share.copies.start)})[share]

    def get_state(self) -> WorldState:
        """See `World.get_state`."""
        return {"shares": list(self._call(dict.fromkeys(self._shares, ("call", "get_state"))).values())}

    def set_state(self, state: WorldState) -> None:
        """See `World.set_state`. Raises ValueError for the state of a world with another number of workers."""
        shares = state["shares"]
        if len(shares) != len(self._shares):
            raise ValueError(f"state of another world: {len(shares)} workers, here {len(self._shares)}")
        self._call({own: ("set_state", state) for own, state in zip(self._shares, shares, strict=True)})
        self._note_who_acts()

    def close(self) -> None:
        """Ends the workers and waits for them. A worker that is still in a long step after `PATIENCE` is killed."""
        self._finalizer()

    def _call(self, calls: Mapping[Share, tuple[Any, ...]]) -> dict[Share, Any]:
        """Calls a method of `CopyServer` on some shares at the same time.

        Args:
            calls: share -> the name of the method and its arguments.

        Returns:
            Share -> what the method returned.
        """
        if not self._finalizer.alive:
            raise RuntimeError("the world is closed")
        try:
            for share, call in calls.items():
                share.begin(*call)
            outcomes = {share: share.finish() for share in calls}
        except BaseException:  # a keyboard interrupt too: an unread answer would be taken for the next one
            self.close()
            raise
        for kind, value in outcomes.values():
            if kind == UNAVAILABLE:
                raise StateUnavailable(str(value))
        return {share: value for share, (_, value) in outcomes.items()}


def _stop(shares: list[Share]) -> None:
    """Closes the own copies and ends the worker processes, which notice their closed socket after their step."""
    workers = [share for share in shares if isinstance(share, RemoteShare)]
    for worker in workers:
        worker.connection.close()
    for share in shares:
        if isinstance(share, LocalShare):
            share.world.close()
    deadline = time.monotonic() + PATIENCE
    for worker in workers:
        try:
            worker.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            worker.process.kill()
            worker.process.wait()
    shares.clear()
