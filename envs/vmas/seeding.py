"""Where VMAS's randomness comes from: the global generators of torch, NumPy and Python, seeded here for a while."""

import contextlib
import importlib
import random
from collections.abc import Iterator

import numpy as np

SEEDS = 2**32  # NumPy's old generator takes no larger seed


@contextlib.contextmanager
def draws_from(rng: np.random.Generator, device: str) -> Iterator[None]:
    """What VMAS draws within follows from the next number of `rng`; the program's own generators stay as they are.

    In each of its calls VMAS swaps the states of the three generators in and out, and in between it keeps them in a
    list that all its environments share (`local_seed` in its environment.py). The generator of a GPU it leaves alone.

    Args:
        rng: gives the seed.
        device: where VMAS simulates, and draws.
    """
    import torch  # only here: the settings of the world are read without it

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
