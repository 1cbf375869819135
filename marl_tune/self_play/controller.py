"""Self-play inside a trial: hears of the games, keeps the pool, copies learners into slots, tells the runners whom to
play next.

It lives in the trial's process. Weights lie where those of all modules do, so that checkpoints, pauses and clones take
them along; what is known about them is `get_state`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from ray.rllib.core import COMPONENT_LEARNER, COMPONENT_RL_MODULE

from marl_tune.config.schema.self_play import VersusConfig
from marl_tune.config.schema.sweep import SweepConfig
from marl_tune.results.metrics import METRICS, TABLE
from marl_tune.sampling.games import Games
from marl_tune.self_play.league import Freeze, scheme
from marl_tune.self_play.pool import UNTRAINED, Pool
from marl_tune.self_play.shared_pool import SharedPool, Weights
from marl_tune.sharing.game_sides import learners_of, slots_of
from marl_tune.sharing.module_specs import build_policy_map, module_specs
from marl_tune.sharing.world_facts import world_facts


class SelfPlay:
    """The pool of one trial, and its hands on the algorithm.

    Args:
        sweep: the trial's settings.
        algorithm: its living Algorithm.
        trial: its id.
        seed: of the untrained policy, the same for all trials of a sweep: their ratings have one zero.
        shared: where the copies of a whole population lie; None: the trial keeps to its own.
    """

    def __init__(self, sweep: SweepConfig, algorithm: Any, trial: str, seed: int, shared: SharedPool | None):
        config = sweep.sharing
        assert isinstance(config, VersusConfig)
        self._sweep, self._algorithm, self._trial, self._seed, self._shared = sweep, algorithm, trial, seed, shared
        self._scheme = scheme(config)
        learners, slots = list(learners_of(config)), slots_of(config)
        self.pool = Pool(learners, slots, config.elo_k, config.replace, self._scheme.window, sweep.seed)

    def begin(self) -> None:
        """Puts the untrained policy into the first slot of a new algorithm."""
        slot = self.pool.slot_ids[0]
        weights = self._untrained()
        self.pool.fill(slot, UNTRAINED, UNTRAINED, 0.0, 0, 0)
        self._put({slot: weights})
        self._tell({slot: weights})

    def play_on(self, games: Sequence[Games], iteration: int, steps: int) -> dict[str, Any]:
        """After an iteration: takes its games in, freezes who is due, and says whom learners play in the next.

        Args:
            games: those that ended in it, runner by runner.
            iteration: number of the iteration that has ended, from 1.
            steps: agent-steps of the trial so far.

        Returns:
            What the result has of it.
        """
        for of_runner in games:
            self.pool.add(of_runner)
        metrics = self.pool.metrics()  # before copies are made: the rates are of the games just played
        changed: dict[str, Weights] = {}
        for freeze in self._scheme.due(self.pool, iteration, steps):
            changed |= self._freeze(freeze, iteration, steps)
        metrics["snapshots"] = self.pool.snapshots
        self._tell(changed)
        return {METRICS: metrics, TABLE: [self.pool.table()]}

    def _freeze(self, freeze: Freeze, iteration: int, steps: int) -> dict[str, Weights]:
        """Copies a learner into a slot, or puts it where the population finds it and takes a copy from there.

        Returns:
            Module id -> weights of what has changed.
        """
        pool, learner = self.pool, freeze.learner
        weights, elo = self._weights(learner), pool.learners[learner].elo
        name, born = f"{self._trial}.{learner}.{iteration:06d}", iteration
        if self._shared is not None:
            name = self._shared.publish(self._trial, learner, iteration, elo, weights)
            known = [player.name for player in pool.slots.values()]
            taken_over = self._shared.choose(learner, known, pool.rng)
            if taken_over is not None:
                name, elo, born, weights = taken_over.name, taken_over.elo, taken_over.iteration, taken_over.weights
        slot = pool.next_slot()
        pool.fill(slot, learner, name, elo, born, steps)
        changed = {slot: weights}
        self._put(changed)
        if freeze.anew:
            changed[learner] = self._weights(pool.slot_ids[0])
            self._restart(learner, changed[learner])
        pool.frozen(learner, iteration, steps, freeze.anew)
        return changed

    # -- the algorithm -----------------------------------------------------------------------------------------------

    def _untrained(self) -> Weights:
        """The weights of a policy that has learned nothing, by the sweep's seed."""
        policy_map = build_policy_map(self._sweep, world_facts(self._sweep))
        specs = module_specs(self._sweep, policy_map).rl_module_specs
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._seed)
            return specs[self.pool.first.id].build().get_state()

    def _weights(self, module_id: str) -> Weights:
        component = f"{COMPONENT_LEARNER}/{COMPONENT_RL_MODULE}/{module_id}"
        state = self._algorithm.learner_group.get_state(components=component)
        # Copied: on a CPU these arrays are the learner's own memory.
        return {name: array.copy() for name, array in state[COMPONENT_LEARNER][COMPONENT_RL_MODULE][module_id].items()}

    def _put(self, weights: Mapping[str, Weights]) -> None:
        """Puts weights into the learners' modules."""
        self._algorithm.learner_group.foreach_learner(lambda learner: learner.module.set_state(weights))

    def _restart(self, module_id: str, weights: Weights) -> None:
        """Puts weights into a learner and forgets what its optimizers remember of the old ones."""

        def restart(learner: Any) -> None:
            learner.module.set_state({module_id: weights})
            for _, optimizer in learner.get_optimizers_for_module(module_id):
                optimizer.state.clear()

        self._algorithm.learner_group.foreach_learner(restart)

    def _tell(self, changed: Mapping[str, Weights]) -> None:
        """Tells the runners whom learners play, and the weights that have changed."""
        table = self._scheme.table(self.pool)
        self._algorithm.env_runner_group.foreach_env_runner(lambda runner: runner.set_matches(table, dict(changed)))

    # -- state -------------------------------------------------------------------------------------------------------

    def get_state(self) -> dict[str, Any]:
        """What is known about the players; their weights are saved with the algorithm's."""
        return self.pool.get_state()

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Goes on from an earlier `get_state`, the weights being back already; a clone takes its donor's ratings."""
        self.pool.set_state(state)
