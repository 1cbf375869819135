"""What a worker process runs: some copies of a world, stepped whenever the process that started it says so.

    python -P -m marl_tune.envs.workers.process DESCRIPTOR

DESCRIPTOR is of the socket through which `workers/world.py` speaks to it. The first messages are how to make the world,
and the memory that all workers share. Each further message is one call, `STEP` or the pickled name and arguments of a
method of `Player`, and is answered by one, `DONE` or the pickled outcome. The process ends when the socket is closed on
the other side, be it that the world was closed or that its owner died.
"""

import pickle
import signal
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle
from typing import Any

import numpy as np

from marl_tune.envs.workers.shared_arrays import SharedArrays, map_file
from marl_tune.envs.world import StateUnavailable, World

STEP, DONE = b"step", b"done"
RETURNED, UNAVAILABLE, FAILED = "returned", "unavailable", "failed"
# what an outcome begins with; a value or the text of the error follows. A worker that has FAILED ends.


class Player:
    """Some copies of a world, their results in the memory that all copies share.

    Args:
        world: the copies.
        arrays: their part of the memory.
    """

    def __init__(self, world: World, arrays: SharedArrays):
        self.world, self.arrays = world, arrays

    def step(self) -> None:
        """Steps all copies by the actions in the memory."""
        self.arrays.write(self.world.step(self.arrays.actions), self.world.acting)

    def reset(self, seeds: Sequence[int | None], copies: np.ndarray) -> None:
        """Resets some copies; their observations go into the memory."""
        self.arrays.write_observations(self.world.reset(seeds, copies), self.world.acting)

    def set_state(self, state: dict[str, Any]) -> None:
        """Sets the state of the copies; who acts then goes into the memory."""
        self.world.set_state(state)
        self.arrays.write_acting(self.world.acting)

    def call(self, method: str, *args: Any) -> Any:
        """Any other method of the world."""
        return getattr(self.world, method)(*args)


def serve(connection: Connection) -> None:
    """Makes the copies and does with them what the other side of the connection asks, until it closes it."""
    try:
        make, copies, num_envs = connection.recv()
        with make(len(copies)) as world:
            connection.send((RETURNED, world.groups))
            shared = map_file(recv_handle(connection), world.groups, num_envs)
            player = Player(world, shared.of(slice(copies.start, copies.stop)))
            while True:
                connection.send_bytes(_answer(player, connection.recv_bytes()))
    except Exception:
        with suppress(OSError):  # the other side is closed: that was the error, or nobody is left to be told of it
            connection.send((FAILED, traceback.format_exc()))


def _answer(player: Player, message: bytes) -> bytes:
    if message == STEP:
        player.step()
        return DONE
    return pickle.dumps(perform(player, *pickle.loads(message)))


def perform(player: Player, method: str, args: tuple) -> tuple[str, Any]:
    """Calls a method of the player. Returns the outcome; raises what the world raises, but StateUnavailable."""
    try:
        return RETURNED, getattr(player, method)(*args)
    except StateUnavailable as error:
        return UNAVAILABLE, str(error)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a keyboard interrupt is for the owner of the world to judge
    serve(Connection(int(sys.argv[1])))
