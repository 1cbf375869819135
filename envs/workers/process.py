"""The program of a worker process: it holds some copies of a world, and steps them when its owner says so.

    python -P -m marl_tune.envs.workers.process DESCRIPTOR

DESCRIPTOR is the file descriptor of a socket to the owner (`workers/world.py`). The first messages say how to make the
world, and hand over the memory that all workers share. Each further message is one call: `STEP`, or the pickled name
and arguments of a method of `CopyServer`. The answer is `DONE`, or the pickled outcome. The process ends when the owner
closes the socket or dies.
"""

import pickle
import signal
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle
from typing import TypeAlias

import numpy as np

from marl_tune.envs.workers.shared_arrays import SharedArrays, map_file
from marl_tune.envs.world import StateUnavailable, World, WorldState

STEP, DONE = b"step", b"done"
RETURNED, UNAVAILABLE, FAILED = "returned", "unavailable", "failed"
# first part of an outcome; the second is a value or the text of the error. A worker that has FAILED ends.
Outcome: TypeAlias = tuple[str, object]


class CopyServer:
    """Executes calls on some copies of a world, and writes their results into memory that several processes share.

    Args:
        world: the copies.
        arrays: their part of the shared memory.
    """

    def __init__(self, world: World, arrays: SharedArrays):
        self.world, self.arrays = world, arrays

    def step(self) -> None:
        """Steps all copies with the actions that are in the memory."""
        self.arrays.write(self.world.step(self.arrays.actions), self.world.acting)

    def reset(self, seeds: Sequence[int | None], copies: np.ndarray) -> None:
        """Resets some copies, and writes the observations into the memory."""
        self.arrays.write_observations(self.world.reset(seeds, copies), self.world.acting)

    def set_state(self, state: WorldState) -> None:
        """Sets the state of the copies, and writes into the memory which agents act next."""
        self.world.set_state(state)
        self.arrays.write_acting(self.world.acting)

    def call(self, method: str, *args: object) -> object:
        """Calls another method of the world."""
        return getattr(self.world, method)(*args)


def serve(connection: Connection) -> None:
    """Makes the copies, and answers calls until the other side closes the connection."""
    try:
        make, copies, num_envs = connection.recv()
        with make(len(copies)) as world:
            connection.send((RETURNED, world.groups))
            shared = map_file(recv_handle(connection), world.groups, num_envs)
            server = CopyServer(world, shared.of(slice(copies.start, copies.stop)))
            while True:
                connection.send_bytes(_answer(server, connection.recv_bytes()))
    except Exception:
        with suppress(OSError):  # the other side is closed: no process is left that could read this
            connection.send((FAILED, traceback.format_exc()))


def _answer(server: CopyServer, message: bytes) -> bytes:
    if message == STEP:
        server.step()
        return DONE
    return pickle.dumps(perform(server, *pickle.loads(message)))


def perform(server: CopyServer, method: str, args: tuple[object, ...]) -> Outcome:
    """Calls a method of the server, and returns the outcome. An error of the world is raised, except
    StateUnavailable."""
    try:
        return RETURNED, getattr(server, method)(*args)
    except StateUnavailable as error:
        return UNAVAILABLE, str(error)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # only the owner of the world reacts to a keyboard interrupt
    serve(Connection(int(sys.argv[1])))
