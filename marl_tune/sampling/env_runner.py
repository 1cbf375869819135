"""RLlib EnvRunner that samples a batched environment: `AlgorithmConfig.env_runners(env_runner_cls=BatchedEnvRunner)`.

It has what `Algorithm` asks of an EnvRunner (weights, state, metrics under RLlib's names). `Rollout` does the stepping.
The env config holds two functions: `world` (num_envs -> World) and `policy_map` (World -> PolicyMap).
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Collection, Iterable, Mapping
from itertools import chain
from typing import Any, TypedDict

import gymnasium as gym
import numpy as np
import ray
import torch
from ray.actor import ActorHandle
from ray.exceptions import RayError
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core import COMPONENT_RL_MODULE
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModule
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

from marl_tune.envs.world import StateUnavailable, World
from marl_tune.results.metrics import (
    COPY,
    FINISHED_EPISODES,
    FINISHED_RETURNS,
    GAMES,
)
from marl_tune.sampling.episode_metrics import EpisodeRecord, forget_world, group_returns, metrics_by_episode
from marl_tune.sampling.episode_pieces import bring_to_host
from marl_tune.sampling.games import games_of
from marl_tune.sampling.policies import Policies
from marl_tune.sampling.rollout import Rollout, RolloutState
from marl_tune.sampling.turn_based.rollout import TurnRollout
from marl_tune.sharing.matchmaking import Table
from marl_tune.sharing.module_specs import MODULE_SETTINGS
from marl_tune.sharing.policy_map import PolicyMap

WITH_STATE = "with_state"  # key of the env config: whether pieces carry the global state
Spaces = dict[str, tuple[gym.Space | None, gym.Space | None]]  # module id -> (observation space, action space)
Weights = Mapping[str, object]  # state of a module


class RunnerState(TypedDict):
    """State of sampling, for a checkpoint of a trial."""

    matches: Table | None
    rollout: RolloutState | None  # None if the environment cannot give its state, or no episode has begun
    steps: int
    recent: list[dict[str, Any]]  # fields of each `EpisodeRecord`
    generator: torch.Tensor  # of torch


class BatchedEnvRunner(EnvRunner, Checkpointable):
    """Samples `num_envs_per_env_runner` copies of one environment at once.

    `sample()` returns a list of `SingleAgentEpisode`s (NumPy, with `agent_id` and `module_id`), of
    `rollout_fragment_length` steps of each copy.

    Args:
        config: RLlib's AlgorithmConfig.
        kwargs: RLlib's other arguments, for example `worker_index`.
    """

    env: World | None  # RLlib's base class sets None

    def __init__(self, *, config: AlgorithmConfig, **kwargs: Any):
        super().__init__(config=config, **kwargs)
        self.spaces: Spaces = kwargs.get("spaces", {})
        self._device = get_device(self.config, 0 if not self.worker_index else self.config.num_gpus_per_env_runner)
        self._weights_seq_no = 0
        self.module: MultiRLModule = None
        self.rollout: Rollout | None = None  # None until the first fragment
        # The actor that holds the newest weights. Asynchronous algorithms (IMPALA, APPO) set it, under this name.
        self._env_runner_state_server: ActorHandle | None = None
        self._steps_taken = 0  # of all copies, since the trial began
        self._fresh_start = False  # whether the next fragment begins new episodes
        self._recent: deque[EpisodeRecord] = deque(maxlen=self.config.metrics_num_episodes_for_smoothing)
        if self.worker_index or self.config.num_env_runners == 0 or self.config.create_env_on_local_worker:
            self.make_env()
        self.make_module()

    # -- building ----------------------------------------------------------------------------------------------------

    def make_env(self) -> None:
        """Builds the environment; sampling begins with new episodes."""
        if self.env is not None:
            self.env.close()
        # If other runners sample, the trial's own runner is only asked for spaces: one copy is enough.
        samples = bool(self.worker_index) or self.config.num_env_runners == 0
        self.env = self.config.env_config["world"](self.config.num_envs_per_env_runner if samples else 1)
        self.num_envs = self.env.num_envs
        self.policy_map: PolicyMap = self.config.env_config["policy_map"](self.env)
        self.rollout = None

    def make_module(self) -> None:
        """Builds the modules that act, without the parts that only learning needs."""
        spec = self.config.get_multi_rl_module_spec(spaces=self.get_spaces(), inference_only=True)
        self.module = spec.build()
        self.module.foreach_module(lambda _, module: module.to(self._device))
        self.rollout = None

    def get_spaces(self) -> Spaces:
        """Returns the spaces of each module, as `Algorithm` asks for them."""
        if self.env is None:
            return self.spaces
        spaces: Spaces = {INPUT_ENV_SPACES: (None, None)}
        return spaces | {m: (a.observation_space, a.action_space) for m, a in self.policy_map.modules.items()}

    def apply_settings(self, config: AlgorithmConfig, new_world: bool) -> None:
        """Takes over a changed config between two `sample()` calls.

        Args:
            config: the new config.
            new_world: whether the environment's settings changed, so that it must be built anew.
        """
        self.config = config.copy(copy_frozen=False)
        for module_id, module in self.module.items():  # modules that act; a central critic is not among them
            module.apply_live_settings(config.learner_config_dict[MODULE_SETTINGS][module_id])
        if new_world and self.env is not None:
            self.make_env()
            self._recent.clear()
            forget_world(self.metrics)

    def begin(self) -> Rollout:
        """Makes a new rollout: the present episodes are dropped, and the next fragment begins with new ones.

        Their seed depends on this runner's seed and on the steps taken so far, so that a runner that begins anew never
        plays its first episodes again.
        """
        assert self.env is not None, "the environment was not built"
        seed = None if self._seed is None else [self._seed, self._steps_taken]
        policies = Policies(dict(self.module.items()), self.policy_map, self.num_envs, self._device, seed)
        lengths = {m: mod.model_config["max_seq_len"] for m, mod in self.module.items() if mod.is_stateful()}
        with_state = self.config.env_config.get(WITH_STATE, False)
        make = Rollout if self.env.acting is None else TurnRollout
        self.rollout = make(self.env, policies, lengths, seed, with_state)
        return self.rollout

    def get_rollout_state(self) -> RunnerState:
        """Returns the state of sampling, in plain types and arrays."""
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

    def set_rollout_state(self, state: RunnerState, go_on: bool) -> None:
        """Restores what `get_rollout_state` returned, whole or in part.

        Args:
            state: of this runner, or of the same runner of another trial.
            go_on: True: sampling goes on as if it had not stopped (a trial that was paused). False: new episodes begin
                with this runner's own seed, and only the metrics of recent episodes are taken over (a clone).
        """
        self._recent.clear()
        self._recent.extend(EpisodeRecord(**fields) for fields in state["recent"])
        self._steps_taken = state["steps"]
        if self.policy_map.matchmaker is not None and state["matches"] is not None:
            self.policy_map.matchmaker.table = state["matches"]
        rollout = self.begin()
        if go_on and state["rollout"] is not None:
            rollout.set_state(state["rollout"])
        if go_on:  # also if a stage of a curriculum has just begun and no episode has
            torch.set_rng_state(state["generator"])

    def set_matches(self, table: Table, replaced: Mapping[str, Weights]) -> None:
        """Sets the opponents of the learners from the next episodes on, and puts other weights into modules.

        Args:
            table: see `Matchmaker`.
            replaced: module id -> new weights. Games that such a module plays at present do not count.
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
            num_timesteps: env-steps of all copies together, rounded up to whole timesteps; default: the config's
                fragment length.
            num_episodes: play so many whole episodes, spread evenly over the copies. They are new episodes, and the
                next call begins new ones, too.
            explore: whether actions are sampled (True) or the most likely ones are taken; default: the config's.
            random_actions: not offered.
            force_reset: begin new episodes first.

        Raises:
            NotImplementedError: for `random_actions`.
        """
        if random_actions:
            raise NotImplementedError("BatchedEnvRunner acts by its modules only")
        self._pull_weights()
        explore = self.config.explore if explore is None else explore
        rollout = self.rollout
        if rollout is None or force_reset or self._fresh_start or num_episodes is not None:
            rollout = self.begin()
        self._fresh_start = num_episodes is not None
        before = rollout.env_steps
        with self.metrics.log_time(SAMPLE_TIMER):
            if num_episodes is None:
                pieces = rollout.sample(self._steps(num_timesteps), explore)
            else:
                pieces = rollout.sample_episodes(num_episodes, explore)
            to_learn_from = rollout.pieces_to_learn_from(pieces)
            if self.worker_index:  # the learner is another process, perhaps without the GPU of this one
                bring_to_host(to_learn_from)
        self._log_steps(pieces, rollout.env_steps - before)
        return to_learn_from

    def _pull_weights(self) -> None:
        """Takes newer weights from the state server, if the algorithm has one; if it is gone, keeps the old weights."""
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
        agent_steps, module_steps = dict.fromkeys(self.policy_map.agents, 0), Counter[str]()
        for piece in pieces:
            steps = piece.t - piece.t_started
            agent_steps[piece.agent_id] += steps
            module_steps[piece.module_id] += steps
        self._steps_taken += env_steps
        log = self.metrics.log_value
        log(NUM_ENV_STEPS_SAMPLED, env_steps, reduce="sum")
        log(NUM_ENV_STEPS_SAMPLED_LIFETIME, env_steps, reduce="lifetime_sum", with_throughput=True)
        for module_id, steps in module_steps.items():
            log((NUM_MODULE_STEPS_SAMPLED, module_id), steps, reduce="sum")
            log((NUM_MODULE_STEPS_SAMPLED_LIFETIME, module_id), steps, reduce="lifetime_sum")
        for agent, steps in agent_steps.items():
            log((NUM_AGENT_STEPS_SAMPLED, agent), steps, reduce="sum")
            log((NUM_AGENT_STEPS_SAMPLED_LIFETIME, agent), steps, reduce="lifetime_sum")
        log(WEIGHTS_SEQ_NO, self._weights_seq_no, window=1)

    def get_metrics(self) -> dict[str, object]:
        """Returns the metrics since the last call.

        Those of episodes are means over the episodes that ended last, even if they ended before the last call.
        """
        if self.rollout is not None and self.rollout.finished:
            ended, number = len(self.rollout.finished), self.worker_index or 0
            of_episodes = metrics_by_episode(self.rollout.finished)
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
        assert self.env is not None

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
    ) -> dict[str, object]:
        """Returns weights and counters. There are no connectors here, so none of their state."""
        state: dict[str, object] = {NUM_ENV_STEPS_SAMPLED_LIFETIME: self.num_env_steps_sampled_lifetime}
        if self._check_component(COMPONENT_RL_MODULE, components, not_components):
            state[COMPONENT_RL_MODULE] = self.module.get_state(**kwargs)
            state[WEIGHTS_SEQ_NO] = self._weights_seq_no
        return state

    def set_state(self, state: dict[str, Any]) -> None:
        """Takes over counters, and weights unless they are older than the present ones."""
        if COMPONENT_RL_MODULE in state:
            number = state.get(WEIGHTS_SEQ_NO, 0)
            if number == 0 or self._weights_seq_no < number:
                weights = state[COMPONENT_RL_MODULE]
                self.module.set_state(ray.get(weights) if isinstance(weights, ray.ObjectRef) else weights)
            if number > 0:
                self._weights_seq_no = number
        if NUM_ENV_STEPS_SAMPLED_LIFETIME in state:
            self.num_env_steps_sampled_lifetime = state[NUM_ENV_STEPS_SAMPLED_LIFETIME]

    def get_ctor_args_and_kwargs(self) -> tuple[tuple[()], dict[str, AlgorithmConfig]]:
        """Returns the arguments with which RLlib makes this runner again."""
        return (), {"config": self.config}

    def get_checkpointable_components(self) -> list[tuple[str, MultiRLModule]]:
        """Returns the parts of which RLlib's checkpoints are made."""
        return [(COMPONENT_RL_MODULE, self.module)]

    def assert_healthy(self) -> None:
        """Raises AssertionError if the environment or the modules were not built."""
        assert self.module is not None, "the modules were not built"
        assert self.env is not None, "the world was not built"

    def stop(self) -> None:
        """Releases the environment, which may have processes of its own."""
        self.rollout = None
        if self.env is not None:
            self.env.close()
