"""VMAS draws from the global generators of torch, NumPy and Python. Here they are seeded for the time of a call."""

import contextlib
import importlib
import random
from collections.abc import Iterator

import numpy as np

SEEDS = 2**32  # seeds are below this: NumPy's old generator accepts no larger one


@contextlib.contextmanager
def draws_from(rng: np.random.Generator, device: str) -> Iterator[None]:
    """In this context, all that VMAS draws follows from the next number of `rng`. The program's own generators do not
    change.

    In each call VMAS swaps the states of the three generators in and out. Between calls it keeps them in a list that
    all its environments share (`local_seed` in its environment.py). It does not do so with the generator of a GPU.

    Args:
        rng: gives the seed.
        device: on which VMAS simulates and draws.
    """
    import torch  # only here: the settings of the world are read without torch

    seed = int(rng.integers(SEEDS))
    kept = importlib.import_module("vmas.simulator.environment").Environment.vmas_random_state
    kept[:] = (
        torch.Generator().manual_seed(seed).get_state(),
        np.random.RandomState(seed).get_state(),
        random.Random(seed).getstate(),
    )
    place = torch.device(device)
    if place.type == "cpu":
        yield
        return
    with torch.random.fork_rng([place], device_type=place.type), torch.cuda.device(place):
        torch.cuda.manual_seed(seed)
        yield
