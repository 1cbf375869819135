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
from itertools import pairwise
from multiprocessing.connection import Connection
from multiprocessing.reduction import send_handle
from typing import Any

import numpy as np

from marl_tune.envs.agent_group import Observations
from marl_tune.envs.groups import checked_actions
from marl_tune.envs.workers.process import DONE, FAILED, RETURNED, STEP, UNAVAILABLE, Player, perform
from marl_tune.envs.workers.shared_arrays import SharedArrays, make_file, map_file
from marl_tune.envs.world import StateUnavailable, Step, World, resolve_reset

PATIENCE = 5.0  # seconds that workers have to end by themselves before they are killed
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
# set where they are not: the workers are the threads, and a pool of more in each only slows its start


class WorkerError(RuntimeError):
    """A worker's copies raised an exception, whose traceback the text holds, or its process died."""


class _Local:
    """The copies that the owner of the world steps itself, while the others step theirs."""

    _player: Player  # once the memory is there

    def __init__(self, world: World, copies: range):
        self.world, self.copies = world, copies

    def map(self, shared: SharedArrays) -> None:
        """Says where the results go."""
        self._player = Player(self.world, shared.of(slice(self.copies.start, self.copies.stop)))

    def begin(self, method: str, *args: Any) -> None:
        """Notes a call of a method of `Player`, which `finish` carries out: the others are to be told first."""
        self._call = method, args

    def finish(self) -> tuple[str, Any]:
        """Carries out the call. Returns its outcome; raises what the world raises."""
        method, args = self._call
        return perform(self._player, method, args)


class _Remote:
    """A process with some of the copies, seen from the process that starts it.

    It is a program of its own and no `multiprocessing.Process`: that would import the main module of whoever starts it,
    in a trial all of Ray. And it has its own process group, so that Ctrl-C in a terminal does not reach it.
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
        """Tells the process what it has copies of. Raises WorkerError if it has died."""
        self._send(pickle.dumps((make, self.copies, num_envs)))

    def map(self, file: int) -> None:
        """Hands over the descriptor of the shared memory. Raises WorkerError if the process has died."""
        try:
            send_handle(self.connection, file, self.process.pid)
        except OSError as error:
            raise self._death() from error

    def begin(self, method: str, *args: Any) -> None:
        """Starts a call of a method of `Player`. Raises WorkerError if the process has died."""
        self._send(STEP if method == "step" else pickle.dumps((method, args)))

    def finish(self) -> tuple[str, Any]:
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


_Share = _Local | _Remote


class WorkerWorld(World):
    """B copies of a world in W processes, in contiguous shares of nearly the same size.

    One of the W is the process that makes it: its own share is stepped here while W - 1 worker processes step theirs.
    Were there W of them, this one would sleep through every step and be woken after it, which costs more than what it
    does between two steps.

    It behaves as the world itself would with all copies in one process. A step costs two short messages a worker;
    actions, observations, rewards and ends lie in memory that all share. A worker imports what the world needs, and
    nothing else of whoever started it. The workers end when the world is closed or collected as garbage, when one share
    fails, when a call is interrupted, and when the process that made the world dies, however it dies.

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
        self._shares: list[_Share] = []
        self._finalizer = weakref.finalize(self, _stop, self._shares)
        bounds = [num_envs * index // workers for index in range(workers + 1)]
        own, *others = (range(start, stop) for start, stop in pairwise(bounds))
        try:
            for copies in others:
                self._shares.append(_Remote(copies))
            self._agree(make, own)
        except BaseException:
            self.close()
            raise

    def _agree(self, make: Callable[[int], World], own: range) -> None:
        """Tells the workers what to make, makes the own share while they do, and gives all of them the memory."""
        workers = [share for share in self._shares if isinstance(share, _Remote)]
        for worker in workers:
            worker.make(make, self.num_envs)
        local = _Local(make(len(own)), own)
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

    def step(self, actions: dict[str, np.ndarray]) -> Step:
        """See `World.step`. Raises ValueError for actions of the wrong shape."""
        for group in self.groups:
            self._shared.actions[group.name][...] = checked_actions(group, actions[group.name], self.num_envs)
        self._call(dict.fromkeys(self._shares, ("step",)))
        self._note_who_acts()
        return self._shared.read(self._takes_turns)

    def own_state(self) -> np.ndarray:
        """See `World.own_state`. It is sent as a message, for few worlds have one, and only central critics ask."""
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

    def get_state(self) -> dict[str, Any]:
        """See `World.get_state`."""
        return {"shares": list(self._call(dict.fromkeys(self._shares, ("call", "get_state"))).values())}

    def set_state(self, state: dict[str, Any]) -> None:
        """See `World.set_state`. Raises ValueError for the state of a world with another number of workers."""
        shares = state["shares"]
        if len(shares) != len(self._shares):
            raise ValueError(f"state of another world: {len(shares)} workers, here {len(self._shares)}")
        self._call({own: ("set_state", state) for own, state in zip(self._shares, shares, strict=True)})
        self._note_who_acts()

    def close(self) -> None:
        """Ends the workers and waits for them; one that is in the middle of a long step is killed."""
        self._finalizer()

    def _call(self, calls: Mapping[_Share, tuple]) -> dict[_Share, Any]:
        """Has some shares, all at once, call a method of `Player`, given with its arguments; what each returned."""
        if not self._finalizer.alive:
            raise RuntimeError("the world is closed")
        try:
            for share, call in calls.items():
                share.begin(*call)
            outcomes = {share: share.finish() for share in calls}
        except BaseException:  # a keyboard interrupt too: answers that nobody has read would be taken for later ones
            self.close()
            raise
        for kind, value in outcomes.values():
            if kind == UNAVAILABLE:
                raise StateUnavailable(value)
        return {share: value for share, (_, value) in outcomes.items()}


def _stop(shares: list[_Share]) -> None:
    """Closes the own copies and ends the processes: they see that their socket is closed once their step is done."""
    workers = [share for share in shares if isinstance(share, _Remote)]
    for worker in workers:
        worker.connection.close()
    for share in shares:
        if isinstance(share, _Local):
            share.world.close()
    deadline = time.monotonic() + PATIENCE
    for worker in workers:
        try:
            worker.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            worker.process.kill()
            worker.process.wait()
    shares.clear()
