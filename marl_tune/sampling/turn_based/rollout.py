"""Samples an environment where agents take turns, die or join: an agent's steps are its own decisions."""

from __future__ import annotations

from collections.abc import Mapping
from operator import attrgetter

import numpy as np
from ray.rllib.env.single_agent_episode import SingleAgentEpisode

from marl_tune.envs.world import World
from marl_tune.sampling.assignment import Seed
from marl_tune.sampling.policies import Policies
from marl_tune.sampling.rollout import Rollout, RolloutState
from marl_tune.sampling.turn_based.decisions import GroupDecisions, TimedPiece
from marl_tune.sampling.turn_based.global_states import TurnStates


class TurnRollout(Rollout):
    """A `Rollout` of an environment with `World.acting`.

    A fragment still has T timesteps of each copy. Its agent-steps are the decisions whose next observation is known at
    its end. Decisions that the fragment before left open are among them.

    >>> from marl_tune.envs import default_config, make_world
    >>> from marl_tune.sampling.testing import small_policies
    >>> world = make_world(default_config("classic/tictactoe"), num_envs=1)
    >>> pieces = TurnRollout(world, small_policies(world), max_seq_len={}, seed=0).sample(num_steps=4)
    >>> [(piece.agent_id, len(piece)) for piece in pieces]  # the last decision is open
    [('player_1', 2), ('player_2', 1)]
    """

    def __init__(
        self,
        world: World,
        policies: Policies,
        max_seq_len: Mapping[str, int],
        seed: Seed = None,
        with_state: bool = False,
    ):
        super().__init__(world, policies, max_seq_len, seed, with_state)
        self.decisions = {
            group.name: GroupDecisions(group, number, policies, max_seq_len)
            for number, group in enumerate(world.groups)
        }
        self.world_states = TurnStates() if with_state else None

    def sample(self, num_steps: int, explore: bool = True) -> list[SingleAgentEpisode]:
        """See `Rollout.sample`. Returns one piece for each agent and segment in which it has acted, in the order of
        their ends."""
        groups = self.decisions.items()
        for _, group in groups:
            group.begin_fragment(num_steps)
        for t in range(num_steps):
            acting = self.world.acting
            assert acting is not None
            if self.world_states is not None:
                self.world_states.add(self.world.state(self.observations))
            for name, group in groups:
                group.note_recurrent_states(acting[name])
            decisions, actions = self.policies.act(self.observations, explore, acting)
            for name, group in groups:
                group.add_decisions(t, acting[name], self.observations[name], decisions[name])
            step = self.world.step(actions)
            assert step.left is not None
            self.observations = step.observations
            self.count_step(step)
            for name, group in groups:
                group.add_rewards(step.rewards[name])
                group.end_agents(t, step.left[name], self.observations[name], self.episode_ids)
            done = np.flatnonzero(step.terminated | step.truncated)
            if len(done):
                if self.world_states is not None:
                    self.world_states.add_last(t, done, self.world.state(self.observations))
                self.begin_episodes(done)
                for _, group in groups:
                    group.begin_episodes(done)
        assert self.world.acting is not None
        pieces: list[TimedPiece] = []
        for name, group in groups:
            pieces += group.end_fragment(self.world.acting[name], self.observations[name], self.episode_ids)
        if self.world_states is not None:
            open_steps = [group.open_steps for _, group in groups]
            self.world_states.end_fragment(pieces, self.world.state(self.observations), open_steps)
        return [timed.piece for timed in sorted(pieces, key=attrgetter("order"))]

    def get_state(self) -> RolloutState:
        """See `Rollout.get_state`. Open decisions belong to the state."""
        state = super().get_state()
        state["decisions"] = {name: group.get_state() for name, group in self.decisions.items()}
        state["episodes"] = list(self.episode_ids)
        if self.world_states is not None:
            state["world_states"] = self.world_states.get_state()
        return state

    def set_state(self, state: RolloutState) -> None:
        """See `Rollout.set_state`."""
        super().set_state(state)
        self.episode_ids = list(state["episodes"])
        for name, group in self.decisions.items():
            group.set_state(state["decisions"][name])
        if self.world_states is not None:
            self.world_states.set_state(state["world_states"])
        self._note_learners(range(self.world.num_envs))
