"""Collects experience from a world where agents take turns, die or join: an agent's steps are its own decisions."""

from __future__ import annotations

from operator import attrgetter
from typing import Any

import numpy as np
from ray.rllib.env.single_agent_episode import SingleAgentEpisode

from marl_tune.envs.world import World
from marl_tune.sampling.assignment import Seed
from marl_tune.sampling.policies import Policies
from marl_tune.sampling.rollout import Rollout
from marl_tune.sampling.turn_based.decisions import Cut, GroupDecisions
from marl_tune.sampling.turn_based.global_states import TurnStates


class TurnRollout(Rollout):
    """A `Rollout` of a world with `World.acting`.

    A fragment is as many steps of the world; its agent-steps are the decisions whose outcome is known at its end, those
    left open by the one before included.
    """

    def __init__(
        self,
        world: World,
        policies: Policies,
        max_seq_len: dict[str, int],
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
        """See `Rollout.sample`; returns one piece per agent and segment in which it has acted, in the order of their
        ends."""
        groups = self.decisions.items()
        for _, group in groups:
            group.begin_fragment(num_steps)
        for t in range(num_steps):
            acting = self.world.acting
            assert acting is not None
            if self.world_states is not None:
                self.world_states.see(self.world.state(self.observations))
            for name, group in groups:
                group.note_states(acting[name])
            decisions, actions = self.policies.act(self.observations, explore, acting)
            for name, group in groups:
                group.add(t, acting[name], self.observations[name], decisions[name])
            step = self.world.step(actions)
            assert step.left is not None
            self.observations = step.observations
            self._count(step)
            for name, group in groups:
                group.pay(step.rewards[name])
                group.leave(t, step.left[name], self.observations[name], self._episode_ids)
            done = np.flatnonzero(step.terminated | step.truncated)
            if len(done):
                if self.world_states is not None:
                    self.world_states.end(t, done, self.world.state(self.observations))
                self._begin_episodes(done)
                for _, group in groups:
                    group.begin_episodes(done)
        assert self.world.acting is not None
        cuts: list[Cut] = []
        for name, group in groups:
            cuts += group.cut(self.world.acting[name], self.observations[name], self._episode_ids)
        if self.world_states is not None:
            waiting = [group.open_steps for _, group in groups]
            self.world_states.hand_over(cuts, self.world.state(self.observations), waiting)
        return [cut.piece for cut in sorted(cuts, key=attrgetter("order"))]

    def get_state(self) -> dict[str, Any]:
        """See `Rollout.get_state`; decisions whose outcome is open belong to it."""
        own: dict[str, Any] = {name: group.get_state() for name, group in self.decisions.items()}
        state = {"decisions": own, "episodes": list(self._episode_ids)}
        if self.world_states is not None:
            state["world_states"] = self.world_states.get_state()
        return super().get_state() | state

    def set_state(self, state: dict[str, Any]) -> None:
        """See `Rollout.set_state`."""
        super().set_state(state)
        self._episode_ids = list(state["episodes"])
        for name, group in self.decisions.items():
            group.set_state(state["decisions"][name])
        if self.world_states is not None:
            self.world_states.set_state(state["world_states"])
        self._note_learners(range(self.world.num_envs))
