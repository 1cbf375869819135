"""Collects experience from a world where agents take turns, die or join: an agent's steps are its own decisions."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from ray.rllib.env.single_agent_episode import SingleAgentEpisode

from envs.world import World
from marl_tune.policy import Policies
from marl_tune.policy_map import Seed
from marl_tune.rollout import Rollout
from marl_tune.tracks import Tracks


class TurnRollout(Rollout):
    """A `Rollout` of a world with `World.acting`.

    A fragment is as many steps of the world; its agent-steps are the decisions whose outcome is known at its end, those
    left open by the one before included.
    """

    def __init__(self, world: World, policies: Policies, max_seq_len: dict[str, int], seed: Seed = None):
        super().__init__(world, policies, max_seq_len, seed)
        self.tracks = Tracks(world.groups, policies, max_seq_len)
        for b in range(world.num_envs):
            self.tracks.begin(b, self._modules[b])

    def sample(self, num_steps: int, explore: bool = True) -> list[SingleAgentEpisode]:
        """See `Rollout.sample`; returns one piece per agent and segment in which it has acted."""
        pieces: list[SingleAgentEpisode] = []
        for _ in range(num_steps):
            acting = self.world.acting
            assert acting is not None
            states = self.tracks.states(acting)
            decisions, actions = self.policies.act(self.observations, explore, acting)
            self.tracks.decide(acting, self.observations, decisions, states)
            step = self.world.step(actions)
            assert step.left is not None
            self.observations = step.observations
            self._count(step)
            self.tracks.pay(step.rewards)
            pieces += self.tracks.leave(step.left, self.observations, self._episode_ids)
            done = np.flatnonzero(step.terminated | step.truncated)
            if len(done):
                self._begin_episodes(done)
                for b in done:
                    self.tracks.begin(int(b), self._modules[b])
        assert self.world.acting is not None
        return pieces + self.tracks.cut(self.world.acting, self.observations, self._episode_ids)

    def get_state(self) -> dict[str, Any]:
        """See `Rollout.get_state`; decisions whose outcome is open belong to it."""
        return super().get_state() | {"tracks": copy.deepcopy(self.tracks.tracks), "episodes": list(self._episode_ids)}

    def set_state(self, state: dict[str, Any]) -> None:
        """See `Rollout.set_state`."""
        super().set_state(state)
        self.tracks.tracks, self._episode_ids = copy.deepcopy(state["tracks"]), list(state["episodes"])
        self._note_learners(range(self.world.num_envs))
