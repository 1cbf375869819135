"""RLlib EnvRunner that samples a batched world: `AlgorithmConfig.env_runners(env_runner_cls=BatchedEnvRunner)`.

It offers what `Algorithm` asks of an EnvRunner (weights, state, metrics under RLlib's names) and leaves the stepping
to `Rollout`. The env
config carries two callables: `world` (num_envs -> World) and `policy_map` (World -> PolicyMap).
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Collection, Iterable
from itertools import chain
from typing import Any

import numpy as np
import ray
import torch
from ray.exceptions import RayError
from ray.rllib.core import COMPONENT_RL_MODULE
from ray.rllib.env import INPUT_ENV_SPACES
from ray.rllib.env.env_runner import EnvRunner
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.utils.checkpoints import Checkpointable
from ray.rllib.utils.framework import get_device
from ray.rllib.utils.metrics import (
    EPISODE_AGENT_RETURN_MEAN,
    EPISODE_DURATION_SEC_MEAN,
    EPISODE_LEN_MAX,
    EPISODE_LEN_MEAN,
    EPISODE_LEN_MIN,
    EPISODE_MODULE_RETURN_MEAN,
    EPISODE_RETURN_MAX,
    EPISODE_RETURN_MEAN,
    EPISODE_RETURN_MIN,
    NUM_AGENT_STEPS_SAMPLED,
    NUM_AGENT_STEPS_SAMPLED_LIFETIME,
    NUM_ENV_STEPS_SAMPLED,
    NUM_ENV_STEPS_SAMPLED_LIFETIME,
    NUM_EPISODES,
    NUM_EPISODES_LIFETIME,
    NUM_MODULE_STEPS_SAMPLED,
    NUM_MODULE_STEPS_SAMPLED_LIFETIME,
    SAMPLE_TIMER,
    WEIGHTS_SEQ_NO,
)

from marl_tune.envs.world import StateUnavailable
from marl_tune.results.metrics import (
    COPY,
    FINISHED_EPISODES,
    FINISHED_RETURNS,
    GAMES,
)
from marl_tune.sampling.episode_metrics import EpisodeRecord, by_episode, forget_world, group_returns
from marl_tune.sampling.episode_pieces import bring_to_host
from marl_tune.sampling.games import games_of
from marl_tune.sampling.policies import Policies
from marl_tune.sampling.rollout import Rollout
from marl_tune.sampling.turn_based.rollout import TurnRollout
from marl_tune.sharing.matchmaking import Table
from marl_tune.sharing.module_specs import MODULE_SETTINGS
from marl_tune.sharing.policy_map import PolicyMap

WITH_STATE = "with_state"  # key of the env config: whether pieces carry the state of the world


class BatchedEnvRunner(EnvRunner, Checkpointable):
    """Samples `num_envs_per_env_runner` copies of one world at once.

    `sample()` returns a list of `SingleAgentEpisode`s (numpy, `agent_id` and `module_id` set),
    `rollout_fragment_length` steps of each copy.
    """

    env: Any  # World; RLlib's base class sets None

    def __init__(self, *, config: Any, **kwargs: Any):
        super().__init__(config=config, **kwargs)
        self.spaces = kwargs.get("spaces", {})
        self._device = get_device(self.config, 0 if not self.worker_index else self.config.num_gpus_per_env_runner)
        self._weights_seq_no = 0
        self.module: Any = None  # MultiRLModule
        self.rollout: Any = None  # Rollout; None until the first fragment
        # The actor that holds the newest weights; set by asynchronous algorithms (IMPALA, APPO), under this very name.
        self._env_runner_state_server: Any = None
        self._steps_taken = 0  # of all copies, since the trial began
        self._fresh_start = False  # whether the next fragment begins new episodes
        self._recent: deque[EpisodeRecord] = deque(maxlen=self.config.metrics_num_episodes_for_smoothing)
        if self.worker_index or self.config.num_env_runners == 0 or self.config.create_env_on_local_worker:
            self.make_env()
        self.make_module()

    # -- building ----------------------------------------------------------------------------------------------------

    def make_env(self) -> None:
        """Builds the world; sampling begins with fresh episodes."""
        if self.env is not None:
            self.env.close()
        # The trial's own runner is asked for spaces only where others sample.
        samples = bool(self.worker_index) or self.config.num_env_runners == 0
        self.env = self.config.env_config["world"](self.config.num_envs_per_env_runner if samples else 1)
        self.num_envs = self.env.num_envs
        self.policy_map: PolicyMap = self.config.env_config["policy_map"](self.env)
        self.rollout = None

    def make_module(self) -> None:
        """Builds the modules that act, without what only learning needs."""
        spec = self.config.get_multi_rl_module_spec(spaces=self.get_spaces(), inference_only=True)
        self.module = spec.build()
        self.module.foreach_module(lambda _, module: module.to(self._device))
        self.rollout = None

    def get_spaces(self) -> dict[str, Any]:
        """Module id -> (observation space, action space), as `Algorithm` wants them."""
        if self.env is None:
            return self.spaces
        modules = {m: (a.observation_space, a.action_space) for m, a in self.policy_map.modules.items()}
        return {INPUT_ENV_SPACES: (None, None), **modules}

    def apply_settings(self, config: Any, new_world: bool) -> None:
        """Takes over a changed config between two `sample()` calls; rebuilds the world where its rules changed."""
        self.config = config.copy(copy_frozen=False)
        for module_id, module in self.module.items():  # those that act: a central critic is not among them
            module.apply_live_settings(config.learner_config_dict[MODULE_SETTINGS][module_id])
        if new_world and self.env is not None:
            self.make_env()
            self._recent.clear()
            forget_world(self.metrics)

    def begin(self) -> None:
        """Forgets the episodes under way; the next fragment begins with fresh ones.

        Their seed is this runner's and the steps taken so far: what begins anew never plays its first episodes again.
        """
        seed = None if self._seed is None else [self._seed, self._steps_taken]
        policies = Policies(dict(self.module.items()), self.policy_map, self.num_envs, self._device, seed)
        lengths = {m: mod.model_config["max_seq_len"] for m, mod in self.module.items() if mod.is_stateful()}
        with_state = self.config.env_config.get(WITH_STATE, False)
        make = Rollout if self.env.acting is None else TurnRollout
        self.rollout = make(self.env, policies, lengths, seed, with_state)

    def get_rollout_state(self) -> dict[str, Any]:
        """Where sampling stands: the copies (None where the world cannot tell, or none has begun), the random
        generator, the episodes that the metrics speak of: plain types and arrays."""
        try:
            rollout = None if self.rollout is None else self.rollout.get_state()
        except StateUnavailable:
            rollout = None  # new episodes after a restore
        matchmaker = self.policy_map.matchmaker
        return {
            "matches": None if matchmaker is None else matchmaker.table,
            "rollout": rollout,
            "steps": self._steps_taken,
            "recent": [dict(vars(record)) for record in self._recent],
            "generator": torch.get_rng_state(),
        }

    def set_rollout_state(self, state: dict[str, Any], go_on: bool) -> None:
        """Takes over an earlier `get_rollout_state`.

        Args:
            go_on: sample as if nothing had happened (a trial that was paused); else begin new episodes with this
                runner's own seed and take over only the episodes that the metrics speak of (a copy of another trial).
        """
        self._recent.clear()
        self._recent.extend(EpisodeRecord(**fields) for fields in state["recent"])
        self._steps_taken = state["steps"]
        if self.policy_map.matchmaker is not None:
            self.policy_map.matchmaker.table = state["matches"]
        self.begin()
        if go_on and state["rollout"] is not None:
            self.rollout.set_state(state["rollout"])
        if go_on:  # also where a stage of a curriculum has just begun, and no episode yet
            torch.set_rng_state(state["generator"])

    def set_matches(self, table: Table, replaced: dict[str, Any]) -> None:
        """Says whom learners play from the next episodes on, and puts other weights into modules.

        Args:
            table: see `Matchmaker`.
            replaced: module id -> weights; games that such a module plays at present count for nobody.
        """
        assert self.policy_map.matchmaker is not None
        self.policy_map.matchmaker.table = table
        self.module.set_state(replaced)
        if self.rollout is not None:
            self.rollout.policies.assignment.note_replaced(replaced)

    # -- sampling ----------------------------------------------------------------------------------------------------

    def sample(
        self,
        *,
        num_timesteps: int | None = None,
        num_episodes: int | None = None,
        explore: bool | None = None,
        random_actions: bool = False,
        force_reset: bool = False,
    ) -> list[SingleAgentEpisode]:
        """Samples one fragment, or whole episodes.

        Args:
            num_timesteps: env steps over all copies, rounded up to whole steps of all; default: the config's fragment
                length.
            num_episodes: play that many whole episodes, spread evenly over the copies, from a fresh start; the next
                call starts afresh too.
            explore: default: the config's.
            random_actions: not offered.
            force_reset: begin new episodes first.
        """
        if random_actions:
            raise NotImplementedError("BatchedEnvRunner acts by its modules only")
        self._pull_weights()
        explore = self.config.explore if explore is None else explore
        if self.rollout is None or force_reset or self._fresh_start or num_episodes is not None:
            self.begin()
        self._fresh_start = num_episodes is not None
        before = self.rollout.env_steps
        with self.metrics.log_time(SAMPLE_TIMER):
            if num_episodes is None:
                pieces = self.rollout.sample(self._steps(num_timesteps), explore)
            else:
                pieces = self.rollout.sample_episodes(num_episodes, explore)
            learned_from = self.rollout.learned_from(pieces)
            if self.worker_index:  # the learner is another process, perhaps without the GPU of this one
                bring_to_host(learned_from)
        self._log_steps(pieces, self.rollout.env_steps - before)
        return learned_from

    def _pull_weights(self) -> None:
        """Takes newer weights from the state server, where an algorithm has one; goes on with the old if it is gone."""
        if self._env_runner_state_server is None:
            return
        try:
            state = ray.get(self._env_runner_state_server.pull_if_newer.remote(self._weights_seq_no))
        except RayError:
            return
        if state is not None:
            self.set_state(state)

    def _steps(self, num_timesteps: int | None) -> int:
        if num_timesteps is None:
            return self.config.get_rollout_fragment_length(self.worker_index or 0)
        return math.ceil(num_timesteps / self.num_envs)

    def _log_steps(self, pieces: list[SingleAgentEpisode], env_steps: int) -> None:
        of_agents, of_modules = dict.fromkeys(self.policy_map.agents, 0), Counter[str]()
        for piece in pieces:
            steps = piece.t - piece.t_started
            of_agents[piece.agent_id] += steps
            of_modules[piece.module_id] += steps
        self._steps_taken += env_steps
        log = self.metrics.log_value
        log(NUM_ENV_STEPS_SAMPLED, env_steps, reduce="sum")
        log(NUM_ENV_STEPS_SAMPLED_LIFETIME, env_steps, reduce="lifetime_sum", with_throughput=True)
        for module_id, steps in of_modules.items():
            log((NUM_MODULE_STEPS_SAMPLED, module_id), steps, reduce="sum")
            log((NUM_MODULE_STEPS_SAMPLED_LIFETIME, module_id), steps, reduce="lifetime_sum")
        for agent, steps in of_agents.items():
            log((NUM_AGENT_STEPS_SAMPLED, agent), steps, reduce="sum")
            log((NUM_AGENT_STEPS_SAMPLED_LIFETIME, agent), steps, reduce="lifetime_sum")
        log(WEIGHTS_SEQ_NO, self._weights_seq_no, window=1)

    def get_metrics(self) -> dict[str, Any]:
        """Metrics since the last call; those of episodes are means over the last ones that ended, however long ago."""
        if self.rollout is not None and self.rollout.finished:
            ended, number = len(self.rollout.finished), self.worker_index or 0
            of_episodes = by_episode(self.rollout.finished)
            of_episodes[COPY] += number * self.num_envs
            returns = np.fromiter(chain.from_iterable(r.returns.values() for r in self.rollout.finished), np.float64)
            if self.policy_map.matchmaker is not None:
                games = games_of(self.rollout.finished, self.policy_map)
                self.metrics.log_value(GAMES, (number, games), reduce="item_series")
            self._recent.extend(self.rollout.finished)
            self.rollout.finished.clear()
            self.metrics.log_value(NUM_EPISODES, ended, reduce="sum")
            self.metrics.log_value(NUM_EPISODES_LIFETIME, ended, reduce="lifetime_sum")
            self.metrics.log_value(FINISHED_RETURNS, (number, returns.reshape(ended, -1)), reduce="item_series")
            self.metrics.log_value(FINISHED_EPISODES, (number, of_episodes), reduce="item_series")
        if self._recent:
            self._log_episodes(list(self._recent))
        return self.metrics.reduce()

    def _log_episodes(self, records: list[EpisodeRecord]) -> None:
        def mean(values: Iterable[float]) -> float:
            return float(np.mean(list(values)))

        agents = {agent: mean(r.returns[agent] for r in records) for agent in records[0].returns}
        lengths, names = [r.length for r in records], sorted({name for r in records for name in r.metrics})
        teams = [sum(r.returns.values()) for r in records]
        values = {
            EPISODE_LEN_MEAN: mean(lengths),
            EPISODE_LEN_MIN: min(lengths),
            EPISODE_LEN_MAX: max(lengths),
            EPISODE_RETURN_MEAN: mean(teams),
            EPISODE_RETURN_MIN: min(teams),
            EPISODE_RETURN_MAX: max(teams),
            EPISODE_DURATION_SEC_MEAN: mean(r.seconds for r in records),
            EPISODE_AGENT_RETURN_MEAN: agents,
            EPISODE_MODULE_RETURN_MEAN: {
                module_id: mean(r.module_returns[module_id] for r in records) for module_id in self.policy_map.modules
            },
            **{name: mean(r.metrics[name] for r in records if name in r.metrics) for name in names},
            **group_returns(self.env.groups, agents),
        }
        self.metrics.log_dict(values, window=1)

    # -- state -------------------------------------------------------------------------------------------------------

    def get_state(
        self,
        components: str | Collection[str] | None = None,
        *,
        not_components: str | Collection[str] | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Weights and counters; there are no connectors on this side, so no state of them to merge."""
        state: dict[str, Any] = {NUM_ENV_STEPS_SAMPLED_LIFETIME: self.num_env_steps_sampled_lifetime}
        if self._check_component(COMPONENT_RL_MODULE, components, not_components):
            state[COMPONENT_RL_MODULE] = self.module.get_state(**kwargs)
            state[WEIGHTS_SEQ_NO] = self._weights_seq_no
        return state

    def set_state(self, state: dict[str, Any]) -> None:
        """Takes over weights, unless they are older than what is here, and counters."""
        if COMPONENT_RL_MODULE in state:
            number = state.get(WEIGHTS_SEQ_NO, 0)
            if number == 0 or self._weights_seq_no < number:
                weights = state[COMPONENT_RL_MODULE]
                self.module.set_state(ray.get(weights) if isinstance(weights, ray.ObjectRef) else weights)
            if number > 0:
                self._weights_seq_no = number
        if NUM_ENV_STEPS_SAMPLED_LIFETIME in state:
            self.num_env_steps_sampled_lifetime = state[NUM_ENV_STEPS_SAMPLED_LIFETIME]

    def get_ctor_args_and_kwargs(self) -> tuple[tuple, dict[str, Any]]:
        return (), {"config": self.config}

    def get_checkpointable_components(self) -> list[tuple[str, Any]]:
        return [(COMPONENT_RL_MODULE, self.module)]

    def assert_healthy(self) -> None:
        """Raises AssertionError unless the world and the modules have been built."""
        assert self.module is not None, "the modules were not built"
        assert self.env is not None, "the world was not built"

    def stop(self) -> None:
        """Releases the world, which may have processes of its own."""
        self.rollout = None
        if self.env is not None:
            self.env.close()
