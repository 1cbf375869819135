"""Self-play inside a trial: updates the pool by the games played, copies learners into slots, chooses opponents.

It runs in the trial's process. The weights of frozen copies are modules of the algorithm, so checkpoints contain them.
`get_state` returns what is known about the copies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.core import COMPONENT_LEARNER, COMPONENT_RL_MODULE
from ray.rllib.core.learner.learner import Learner

from marl_tune.config.schema.self_play import VersusConfig
from marl_tune.config.schema.sweep import SweepConfig
from marl_tune.results.metrics import METRICS, TABLE
from marl_tune.sampling.games import Games
from marl_tune.self_play.league import Freeze, scheme
from marl_tune.self_play.pool import UNTRAINED, Pool, PoolState
from marl_tune.self_play.shared_pool import SharedPool, Weights
from marl_tune.sharing.game_sides import learners_of, slots_of
from marl_tune.sharing.module_specs import build_policy_map, module_specs
from marl_tune.sharing.world_facts import world_facts


class SelfPlay:
    """The pool of one trial, and the changes that it makes to the algorithm.

    Args:
        sweep: the trial's settings.
        algorithm: its living Algorithm.
        trial: its id.
        seed: of the untrained policy. It is the same for all trials of a sweep, so that their ratings can be compared.
        shared: the copies of the whole population; None: the trial plays against its own copies only.
    """

    def __init__(self, sweep: SweepConfig, algorithm: Algorithm, trial: str, seed: int, shared: SharedPool | None):
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

    def play_on(self, games: Sequence[Games], iteration: int, steps: int) -> dict[str, object]:
        """After an iteration: takes in its games, freezes the learners that are due, and chooses the next opponents.

        Args:
            games: the games that ended in it, one entry for each env runner.
            iteration: number of the iteration that has ended, from 1.
            steps: agent-steps of the trial so far.

        Returns:
            The part of the result that is about self-play.
        """
        for of_runner in games:
            self.pool.add(of_runner)
        metrics = self.pool.metrics()  # before copies are made, so that the rates cover the games just played
        changed: dict[str, Weights] = {}
        for freeze in self._scheme.due(self.pool, iteration, steps):
            changed |= self._freeze(freeze, iteration, steps)
        metrics["snapshots"] = self.pool.snapshots
        self._tell(changed)
        return {METRICS: metrics, TABLE: [self.pool.table()]}

    def _freeze(self, freeze: Freeze, iteration: int, steps: int) -> dict[str, Weights]:
        """Copies a learner into a slot; in a population, publishes the copy and takes another trial's copy if it can.

        Returns:
            Module id -> new weights, of all modules that have changed.
        """
        pool, learner = self.pool, freeze.learner
        weights, elo = self._weights(learner), pool.learners[learner].elo
        name, born = f"{self._trial}.{learner}.{iteration:06d}", iteration
        if self._shared is not None:
            name = self._shared.publish(self._trial, learner, iteration, elo, weights)
            known = [member.name for member in pool.slots.values()]
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
        """The initial weights that the sweep's seed gives."""
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
        """Puts weights into a learner and clears the state of its optimizers."""

        def restart(learner: Learner) -> None:
            learner.module.set_state({module_id: weights})
            for _, optimizer in learner.get_optimizers_for_module(module_id):
                optimizer.state.clear()

        self._algorithm.learner_group.foreach_learner(restart)

    def _tell(self, changed: Mapping[str, Weights]) -> None:
        """Sends the env runners the shares of the learners' opponents, and the weights that have changed."""
        table = self._scheme.table(self.pool)
        self._algorithm.env_runner_group.foreach_env_runner(lambda runner: runner.set_matches(table, dict(changed)))

    # -- state -------------------------------------------------------------------------------------------------------

    def get_state(self) -> PoolState:
        """The pool without weights, which are saved with the algorithm's."""
        return self.pool.get_state()

    def set_state(self, state: PoolState) -> None:
        """Continues from an earlier `get_state`, after the weights were loaded. A clone takes its donor's ratings."""
        self.pool.set_state(state)
