"""Two ways to use a pool: one learner against its past, and a league of learners.

Each decides whom a learner plays and when it is frozen, which means copied into a slot.

The league is that of Vinyals et al. 2019 (https://doi.org/10.1038/s41586-019-1724-z), after the pseudocode in their
supplement. Differences: steps are agent-steps of the trial. All learners train in one process and get the same share
of its episodes. Slots are limited: a new copy replaces an old one, but never the untrained policy, which counts as a
past self of every learner.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from marl_tune.config.schema.self_play import LeagueConfig, SelfPlayConfig, VersusConfig
from marl_tune.self_play.pool import UNTRAINED, Pool
from marl_tune.sharing.game_sides import LEAGUE_EXPLOITER, MAIN, MAIN_AGENT, MAIN_EXPLOITER, learners_of
from marl_tune.sharing.matchmaking import Table, prioritised

TOO_STRONG = 0.3  # win rate of a main agent below which a rival is too strong, so that its past selves are played
FORGOTTEN = 0.7  # win rate of a main agent below which it plays against a past self again
HOPELESS = 0.1  # win rate of an exploiter below which it plays the past selves of a main agent
HARD = 2.0  # exponent of the hard weighting

Shares = dict[str, float]  # player -> share


@dataclass(frozen=True)
class Freeze:
    """A learner that is to be copied into a slot."""

    learner: str
    anew: bool = False  # whether it is then reset to the untrained policy


class Scheme(Protocol):
    """Whom each learner plays, and when it is frozen."""

    window: int  # number of newest games of the first learner against frozen copies that the logged rates cover

    def table(self, pool: Pool) -> Table:
        """Learner -> player -> share of its games."""

    def due(self, pool: Pool, iteration: int, steps: int) -> list[Freeze]:
        """The learners that are to be frozen after this iteration, at so many agent-steps."""


def scheme(config: VersusConfig) -> Scheme:
    """The scheme that `sharing` names."""
    if isinstance(config, SelfPlayConfig):
        return PastSelves(config)
    assert isinstance(config, LeagueConfig)
    return League(config)


class PastSelves:
    """One learner against the pool, and in a share of the games against itself."""

    def __init__(self, config: SelfPlayConfig):
        self.config, self.window = config, config.snapshot.games

    def table(self, pool: Pool) -> Table:
        """See `Scheme.table`."""
        config, slots = self.config, list(pool.slots)
        if config.opponents == "latest":
            weights = np.array([slot == max(slots, key=lambda s: pool.slots[s].filled) for slot in slots], np.float64)
        elif config.opponents == "uniform":
            weights = np.full(len(slots), 1 / len(slots))
        else:
            weights = prioritised(pool.win_rates(MAIN, slots), config.weighting, config.exponent)
        shares = (1 - config.mirror) * weights
        return {MAIN: {MAIN: config.mirror} | dict(zip(slots, shares.tolist(), strict=True))}

    def due(self, pool: Pool, iteration: int, steps: int) -> list[Freeze]:
        """See `Scheme.due`."""
        rules = self.config.snapshot
        if rules.every is not None and iteration - pool.first.iteration >= rules.every:
            return [Freeze(MAIN)]
        wins = pool.games_since >= rules.games and pool.win_rate >= rules.win_rate
        return [Freeze(MAIN)] if wins else []


class League:
    """Main agents, main exploiters and league exploiters."""

    def __init__(self, config: LeagueConfig):
        self.config, self.window = config, config.games
        self.kinds = learners_of(config)
        self.main_agents = [learner for learner, kind in self.kinds.items() if kind == MAIN_AGENT]

    def table(self, pool: Pool) -> Table:
        """See `Scheme.table`."""
        shares = {MAIN_AGENT: self._main_agent, MAIN_EXPLOITER: self._main_exploiter}
        return {
            learner: shares.get(kind, self._league_exploiter)(pool, learner) for learner, kind in self.kinds.items()
        }

    def _main_agent(self, pool: Pool, learner: str) -> Shares:
        config, rivals = self.config.shares, len(self.main_agents)
        parts = [(config.past, self._among(pool, learner, list(pool.slots), "hard"))]
        for rival in self.main_agents:
            played = self._self_play(pool, learner, rival)
            verified = self._verification(pool, learner, rival) or played
            parts += [(config.self_play / rivals, played), (config.verification / rivals, verified)]
        return _mixed(parts)

    def _self_play(self, pool: Pool, learner: str, rival: str) -> Shares:
        """The other main agent; where it is too strong, its past selves, the easier ones more often."""
        if self._wins(pool, learner, rival) > TOO_STRONG:
            return {rival: 1.0}
        return self._among(pool, learner, self._past_of(pool, rival), "variance")

    def _verification(self, pool: Pool, learner: str, rival: str) -> Shares | None:
        """Frozen exploiters that still win, else past selves that win again; None: there are none."""
        exploiters = [s for s, p in pool.slots.items() if self.kinds.get(p.parent) == MAIN_EXPLOITER]
        if exploiters and pool.win_rates(learner, exploiters).min() < TOO_STRONG:
            return self._among(pool, learner, exploiters, "hard")
        past = sorted(self._past_of(pool, rival), key=lambda slot: pool.slots[slot].filled)
        past = past[: _without_falling_end(pool.win_rates(learner, past))]
        if past and pool.win_rates(learner, past).min() < FORGOTTEN:
            return self._among(pool, learner, past, "hard")
        return None

    def _main_exploiter(self, pool: Pool, learner: str) -> Shares:
        parts = []
        for rival in self.main_agents:
            if self._wins(pool, learner, rival) > HOPELESS:
                played = {rival: 1.0}
            else:
                played = self._among(pool, learner, self._past_of(pool, rival), "variance")
            parts.append((1 / len(self.main_agents), played))
        return _mixed(parts)

    def _league_exploiter(self, pool: Pool, learner: str) -> Shares:
        return self._among(pool, learner, list(pool.slots), "capped")

    @staticmethod
    def _past_of(pool: Pool, learner: str) -> list[str]:
        return [slot for slot, player in pool.slots.items() if player.parent in (learner, UNTRAINED)]

    @staticmethod
    def _among(pool: Pool, learner: str, slots: Sequence[str], weighting: str) -> Shares:
        shares = prioritised(pool.win_rates(learner, slots), weighting, HARD)
        return dict(zip(slots, shares.tolist(), strict=True))

    @staticmethod
    def _wins(pool: Pool, learner: str, rival: str) -> float:
        return float(pool.win_rates(learner, [rival])[0])

    def due(self, pool: Pool, iteration: int, steps: int) -> list[Freeze]:
        """See `Scheme.due`."""
        rules, found = self.config.freeze, []
        for learner, kind in self.kinds.items():
            passed = steps - pool.learners[learner].steps
            rivals = self.main_agents if kind == MAIN_EXPLOITER else list(pool.slots)
            beaten = pool.win_rates(learner, rivals).min() > rules.win_rate
            if passed >= rules.max_steps or (passed >= rules.min_steps and beaten):
                found.append(Freeze(learner, self._begins_anew(kind, pool)))
        return found

    def _begins_anew(self, kind: str, pool: Pool) -> bool:
        if kind == LEAGUE_EXPLOITER:
            return bool(pool.rng.random() < self.config.reset)
        return kind == MAIN_EXPLOITER


def _mixed(parts: Sequence[tuple[float, Mapping[str, float]]]) -> Shares:
    mixed: Shares = {}
    for weight, shares in parts:
        for player, share in shares.items():
            mixed[player] = mixed.get(player, 0.0) + weight * share
    return mixed


def _without_falling_end(win_rates: np.ndarray) -> int:
    """Number of entries that are left when the falling end of the win rates is cut off.

    Past selves are in the order of their age, and later ones are harder to beat. Only one that is beaten less often
    than the next later one was forgotten.
    """
    for number in range(len(win_rates) - 1, 0, -1):
        if win_rates[number - 1] < win_rates[number]:
            return number + 1
    return 0
