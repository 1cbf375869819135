"""A scenario of VMAS, the Vectorized Multi-Agent Simulator, as a `World`: B copies in one batch of torch tensors."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np

from marl_tune.envs.agent_group import Actions, AgentGroup, Observations
from marl_tune.envs.curriculum import WorldConfig
from marl_tune.envs.groups import checked_actions, group_agents, zero_observations
from marl_tune.envs.trees import Array, copied, on_host, tree_map
from marl_tune.envs.vmas.render import draw
from marl_tune.envs.vmas.scenario import make_env, to_gymnasium
from marl_tune.envs.vmas.seeding import draws_from
from marl_tune.envs.world import Step, World, WorldState, resolve_reset

if TYPE_CHECKING:
    from torch import Tensor
    from vmas.simulator.environment import Environment  # type: ignore[import-untyped]

LANES = 64
# VMAS always simulates a multiple of so many copies. Otherwise torch's vector instructions would round the last ones
# differently

Tensors: TypeAlias = "Tensor | dict[str, Tensor]"  # what VMAS returns for one agent


@dataclass
class VmasConfig(WorldConfig):
    """Which scenario, and how its agents act."""

    name: str
    # stem of the world: vmas
    scenario: str = field(metadata={"structural": True})
    # name of one of VMAS's scenarios, such as balance, transport, navigation, simple_tag
    kwargs: dict[str, Any] = field(metadata={"structural": True})
    # arguments of the scenario, such as n_agents; the others keep the scenario's own defaults
    continuous_actions: bool = field(metadata={"structural": True})
    # true: Box, force in each direction; false: Discrete, each direction off, or at full force one way or the other
    max_steps: int
    # steps until an episode is truncated, >= 1
    device: str = field(metadata={"structural": True})
    # on which torch simulates: cpu, cuda, cuda:1, ...

    def __post_init__(self) -> None:
        if not re.fullmatch(r"cpu|cuda(:\d+)?", self.device):
            raise ValueError(f"env.device must be cpu, cuda, or cuda: and a number, got {self.device!r}")
        if self.max_steps < 1:
            raise ValueError(f"env.max_steps must be at least 1, got {self.max_steps}")


class Vmas(World):
    """B copies of one VMAS scenario, stepped at once.

    Description:
        Agents with the same spaces, and the same name but for its number, form a group that has that name: `agent_0`
        and `agent_1` are the group `agent`. Agents that a scenario moves by itself are in no group.

        VMAS draws from global generators. Here each copy is reset alone, and its own generator seeds the global ones
        (`seeding.py`). So the start of an episode depends on the copy's own seed only. What a scenario draws during an
        episode, it draws for all copies at once. These numbers come from one more generator, which is seeded together
        with copy 0: a run can be repeated, but a copy then depends on the others. VMAS simulates a multiple of 64
        copies, of which the last ones are not used: otherwise the rounding of a copy would depend on B. In VMAS 1.5.2
        the copies of buzz_wire, football, het_mass and simple_crypto depend on each other anyway, and road_traffic and
        wind_flocking keep some state over a reset.

    Actions:
        Box; Discrete without `continuous_actions`. A scenario with communication adds its symbols.

    Observations:
        A Box, or a Dict of Boxes, float32. In a simulation on a GPU they are torch tensors on that GPU.

    Rewards:
        The scenario's own.

    Start:
        `reset_world_at` of the scenario.

    End:
        Terminated when the scenario returns `done`; otherwise truncated after `max_steps` steps.

    Metrics:
        Each number in the scenario's `info` of the last step: its mean over the agents that have it.

    Arguments:
        config: the scenario and its settings.
        num_envs: B.

    Raises:
        ValueError: if VMAS is not installed, has no such scenario, or the scenario does not accept its arguments.

    Source:
        Bettini et al.: VMAS (2022), https://arxiv.org/abs/2207.03530.
    """

    Config = VmasConfig

    def __init__(self, config: VmasConfig, num_envs: int = 1):
        from marl_tune.envs.vmas.state import (
            StateOf,
        )  # only here: it imports torch, and the settings are read without torch

        self.config, self.num_envs = config, num_envs
        settings = {"max_steps": config.max_steps, "continuous_actions": config.continuous_actions}
        self._stays = stays_on(config.device)
        self._lanes = -(-num_envs // LANES) * LANES  # copies of VMAS's; those from B on do nothing
        self.env = make_env(config.scenario, config.kwargs, self._lanes, config.device, **settings)
        self._state = StateOf(self.env)
        self._members = _grouped(self.env)  # per group the places of its agents in the environment's lists
        self.groups = tuple(group for group, _ in self._members)
        self._rngs = [np.random.default_rng() for _ in range(num_envs)]
        self._shared_rng = np.random.default_rng()  # of what is drawn for all copies at once
        self._observations = tree_map(self._from_host, zero_observations(self.groups, num_envs))
        self._told: dict[str, np.ndarray] = {}  # name -> (B,): the infos of the last step

    def reset(self, seeds: Sequence[int | None] | None = None, copies: np.ndarray | None = None) -> Observations:
        """See `World.reset`. The observations of copies that have never been reset are zeros."""
        pairs = resolve_reset(self.num_envs, seeds, copies)
        for copy, seed in pairs:
            if seed is not None:
                self._rngs[copy] = np.random.default_rng(seed)
                if copy == 0:
                    self._shared_rng = np.random.default_rng([seed, 1])
            with draws_from(self._rngs[copy], self.config.device):
                self.env.reset_at(copy, return_observations=False)
        with draws_from(self._shared_rng, self.config.device):
            seen = self._seen(self.env.get_from_scenario(True, False, False, False)[0])
        chosen = [copy for copy, _ in pairs]
        for group in self.groups:
            tree_map(lambda rows, new: _put(rows, chosen, new), self._observations[group.name], seen[group.name])
        return tree_map(copied, self._observations)

    def step(self, actions: Actions) -> Step:
        """See `World.step`. Raises ValueError for actions of the wrong shape."""
        import torch  # only here: the settings are read without torch

        acts: list[Tensor | None] = [None] * len(self.env.agents)
        for group, places in self._members:
            given = checked_actions(group, actions[group.name], self.num_envs).astype(
                group.action_space.dtype, copy=False
            )
            padded = np.zeros((self._lanes, *given.shape[1:]), given.dtype)
            padded[: self.num_envs] = given
            for column, place in enumerate(places):
                acts[place] = torch.tensor(padded[:, column], device=self.env.device).reshape(self._lanes, -1)
        with draws_from(self._shared_rng, self.config.device):
            seen, rewards, terminated, truncated, infos = self.env.step(acts)
        self._observations = self._seen(seen)
        self._told = {name: values[: self.num_envs] for name, values in _means(infos).items()}
        ended, late = terminated.bool()[: self.num_envs], truncated.bool()[: self.num_envs]
        return Step(
            observations=tree_map(copied, self._observations),
            rewards=tree_map(
                on_host, self._stacked([reward.reshape(self._lanes) for reward in rewards])
            ),  # or (lanes, 1)
            terminated=ended.cpu().numpy(),
            truncated=(late & ~ended).cpu().numpy(),
        )

    def _stacked(self, per_agent: Sequence[Tensors]) -> Observations:
        """Tensors (lanes, ...) of each agent, or dicts of them -> group -> (B, N, ...) float32, copied."""
        import torch  # only here: the settings are read without torch

        def stack(*tensors: "Tensor") -> "Tensor":
            return torch.stack([tensor[: self.num_envs].float().detach() for tensor in tensors], dim=1)

        return {g.name: tree_map(stack, *(per_agent[place] for place in places)) for g, places in self._members}

    def _seen(self, per_agent: Sequence[Tensors]) -> Observations:
        """The observations by group: tensors on the GPU if the simulation is there, else NumPy's arrays."""
        seen = self._stacked(per_agent)
        return seen if self._stays else tree_map(on_host, seen)

    def _from_host(self, array: np.ndarray) -> Array:
        """A copy of an array of observations: a tensor on the GPU if the simulation is there, else NumPy's."""
        import torch  # only here: the settings are read without torch

        return torch.from_numpy(array.copy()).to(self.env.device) if self._stays else array.copy()

    def episode_metrics(self, copies: np.ndarray) -> dict[str, np.ndarray]:
        """See `World.episode_metrics`. A metric that is not finite in one of the copies is left out."""
        told = {name: values[copies] for name, values in self._told.items()}
        return {name: values for name, values in told.items() if np.isfinite(values).all()}

    def render(self, copy: int = 0) -> np.ndarray:
        """One copy from above, `(height, width, 3)` uint8: see `vmas/render.py`."""
        return draw(self.env, copy)

    def get_state(self) -> WorldState:
        """See `World.get_state`."""
        return {
            "simulation": self._state.dump(),
            "arrays": {"observations": tree_map(on_host, self._observations), "told": tree_map(np.copy, self._told)},
            "generators": [rng.bit_generator.state for rng in (*self._rngs, self._shared_rng)],
        }

    def set_state(self, state: WorldState) -> None:
        """See `World.set_state`. Raises ValueError for the state of a world with other settings or another B."""
        if len(state["generators"]) != self.num_envs + 1:
            raise ValueError(f"state of another world: {len(state['generators']) - 1} copies, here {self.num_envs}")
        self._state.load(state["simulation"])
        self._observations = tree_map(self._from_host, state["arrays"]["observations"])
        self._told = tree_map(np.copy, state["arrays"]["told"])
        for rng, saved in zip((*self._rngs, self._shared_rng), state["generators"], strict=True):
            rng.bit_generator.state = saved


def stays_on(device: str) -> bool:
    """Whether observations stay on this device as torch tensors."""
    return device != "cpu"


def _grouped(env: "Environment") -> list[tuple[AgentGroup, list[int]]]:
    """The groups of an environment, each with the indices of its agents in the environment's lists."""
    kinds = zip(env.agents, env.observation_space, env.action_space, strict=True)
    return group_agents(
        (agent.name, re.sub(r"[ _]?\d+$", "", agent.name) or "agent", to_gymnasium(seen), to_gymnasium(act))
        for agent, seen, act in kinds
    )


def _put(rows: np.ndarray, chosen: list[int], new: np.ndarray) -> None:
    rows[chosen] = new[chosen]


def _means(infos: Sequence[dict[str, Any]]) -> dict[str, np.ndarray]:
    """Name -> (B,): each number of the agents' infos as its mean over the agents that have it."""
    told: dict[str, list[Tensor]] = {}
    for info in infos:
        for name, value in info.items():
            if getattr(value, "ndim", 0) and value.numel() == len(value):  # one number a copy
                told.setdefault(name, []).append(value.reshape(-1).double())
    return {name: (cast("Tensor", sum(values)) / len(values)).cpu().numpy() for name, values in told.items()}
