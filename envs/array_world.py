"""Base of worlds whose state is arrays and random generators: how they are seeded, saved and restored."""

from abc import abstractmethod
from collections.abc import Iterator, Sequence

import numpy as np

from marl_tune.envs.world import World, WorldState, resolve_reset


class ArrayWorld(World):
    """Base of a world whose whole state is arrays and one random generator per copy."""

    _rngs: list[np.random.Generator]  # one per copy

    @abstractmethod
    def _arrays(self) -> dict[str, np.ndarray]:
        """The arrays that change during an episode and do not follow from others, by name."""

    def _restarted(
        self, seeds: Sequence[int | None] | None, copies: np.ndarray | None
    ) -> Iterator[tuple[int, np.random.Generator]]:
        """The copies that `World.reset` resets, each with its generator. A copy with a seed gets a new generator."""
        for copy, seed in resolve_reset(self.num_envs, seeds, copies):
            if seed is not None:
                self._rngs[copy] = np.random.default_rng(seed)
            yield copy, self._rngs[copy]

    def get_state(self) -> WorldState:
        """See `World.get_state`."""
        return {
            "arrays": {name: array.copy() for name, array in self._arrays().items()},
            "generators": [generator.bit_generator.state for generator in self._rngs],
        }

    def set_state(self, state: WorldState) -> None:
        """See `World.set_state`.

        Raises:
            ValueError: for the state of a world of another size. No array is changed then.
        """
        arrays = self._arrays()
        for name, array in state["arrays"].items():
            if array.shape != arrays[name].shape:
                raise ValueError(f"state of another world: {name} is {array.shape}, here {arrays[name].shape}")
        for name, array in state["arrays"].items():
            arrays[name][...] = array
        for generator, saved in zip(self._rngs, state["generators"], strict=True):
            generator.bit_generator.state = saved
