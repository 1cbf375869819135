"""The pool of a trial: its learners, the frozen copies in its slots, their results and ratings.

Ratings are Elo's (1978), on one scale. The untrained policy in the first slot always has 0 points, and a learner begins
with 0 points. A frozen copy keeps the rating that its learner had. So trials that play against the same copies can be
compared. (In Elo's system every rating changes; here only those of learners do.)

A rating follows a learner with a delay of about 700 / elo_k games, with a standard deviation of about sqrt(87 elo_k)
points. Copies inherit the error, and it is biased upwards: a copy is made when its learner has won more than expected.
So elo_k is small here, where games are many (chess uses 10 to 40).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any, TypedDict

import numpy as np

from marl_tune.sampling.games import DRAW, Games, result_of
from marl_tune.self_play.ratings import Payoff, PayoffState, both_ways, expected_score

UNTRAINED = "untrained"  # parent and name of the policy in the first slot

Pair = tuple[int, int, float]  # number of a player, number of its opponent, result of the player in [0, 1]


@dataclass
class PoolMember:
    """A learner, or a frozen copy of one."""

    id: str  # id of its module
    parent: str  # the learner itself, or the learner that was copied
    name: str = ""  # of a copy: trial.learner.iteration
    elo: float = 0.0  # points; 0 is the untrained policy
    iteration: int = 0  # of the trial when it was frozen; of a learner: when it was frozen or reset last
    steps: int = 0  # agent-steps of the trial then
    filled: int = 0  # running number of the filling of its slot


class PoolState(TypedDict):
    """All that a checkpoint keeps of a pool; the weights are saved with the algorithm's."""

    learners: dict[str, dict[str, Any]]  # module id -> fields of a `PoolMember`
    slots: dict[str, dict[str, Any]]
    payoff: PayoffState
    recent: list[tuple[float, bool, int]]
    games_since: int
    snapshots: int
    generator: Mapping[str, Any]  # NumPy's state of a bit generator


class PoolTable(TypedDict):
    """The table of a pool, in JSON's types."""

    players: list[str]
    elo: list[float]
    win_rates: list[list[float | None]]  # row against column; None where a pair has not played


class Pool:
    """Keeps the members of a pool, their results against each other and their ratings.

    Args:
        learners: their module ids; the metrics speak of the first.
        slots: module ids of the slots for frozen copies.
        elo_k: most points that a rating moves by one game.
        replace: crowded | oldest, the copy that makes room when all slots are full; see `next_slot`.
        window: newest games of the first learner against frozen copies that the rates speak of.
        seed: of what the schemes draw.
    """

    def __init__(
        self, learners: Sequence[str], slots: Sequence[str], elo_k: float, replace: str, window: int, seed: int
    ):
        self.learners = {module_id: PoolMember(module_id, module_id) for module_id in learners}
        self.slot_ids = list(slots)
        self.slots: dict[str, PoolMember] = {}  # those that are filled, in their order
        self.elo_k, self.replace = elo_k, replace
        self.ids = [*learners, *slots]  # a player's number is its place here
        self.payoff = Payoff(len(self.ids))
        self.recent: deque[tuple[float, bool, int]] = deque(maxlen=window)  # (result, drawn, steps) of a game
        self.games_since = 0  # games of the first learner against frozen copies since it was frozen last
        self.snapshots = 0  # copies made so far, the untrained policy not counted
        self.rng = np.random.default_rng(seed)

    @property
    def first(self) -> PoolMember:
        """The learner that the metrics describe."""
        return next(iter(self.learners.values()))

    def member(self, module_id: str) -> PoolMember:
        """The learner or the copy that a module holds now."""
        return self.learners[module_id] if module_id in self.learners else self.slots[module_id]

    def win_rates(self, player: str, opponents: Sequence[str]) -> np.ndarray:
        """(opponents,) of one module against others, [0, 1]; 0.5 where they have not played."""
        return self.payoff.win_rates(self.ids.index(player), [self.ids.index(other) for other in opponents])

    # -- games -------------------------------------------------------------------------------------------------------

    def add(self, games: Games) -> None:
        """Takes in finished games, one after the other. A game in which one module plays all sides changes nothing."""
        for players, returns, length in zip(games.players.tolist(), games.returns, games.lengths.tolist(), strict=True):
            pairs = [(i, j) for i, j in combinations(range(len(players)), 2) if players[i] != players[j]]
            results = [(players[i], players[j], result_of(returns[i], returns[j])) for i, j in pairs]
            self._rate(results, len(players) - 1)
            for first, second, result in results:
                self.payoff.add(first, second, result)
            self._remember(results, length)

    def _rate(self, results: Sequence[Pair], opponents: int) -> None:
        """Elo's update, for all pairs of a game at once: R += K (result - expected) / opponents."""
        change: dict[str, float] = {}
        for first, second, result in results:
            for home, away, score in both_ways(first, second, result):
                own = self.ids[home]
                if own in self.learners:
                    expected = expected_score(self.learners[own].elo, self.member(self.ids[away]).elo)
                    change[own] = change.get(own, 0.0) + self.elo_k * (score - expected) / opponents
        for own, points in change.items():
            self.learners[own].elo += points

    def _remember(self, results: Sequence[Pair], length: int) -> None:
        """Keeps a game of the first learner against frozen copies, for the rates."""
        scores = []
        for first, second, result in results:
            for home, away, score in both_ways(first, second, result):
                if home == 0 and self.ids[away] in self.slots:
                    scores.append(score)
        if scores:
            self.recent.append((float(np.mean(scores)), all(score == DRAW for score in scores), length))
            self.games_since += 1

    # -- copies ------------------------------------------------------------------------------------------------------

    def next_slot(self) -> str:
        """The slot that the next copy takes: a free one, else the slot of the copy to be replaced; never the first.

        `oldest` replaces the oldest copy. `crowded` replaces the copy with the fewest agent-steps between its
        neighbours, the copies of the same learner before and after it; each learner's newest copy stays. So the copies
        that stay are spread over the whole run, and drawing opponents uniformly is the rule of Bansal et al. 2018
        (https://arxiv.org/abs/1710.03748, delta = 0). The newest copies alone are often all alike.
        """
        free = [slot for slot in self.slot_ids if slot not in self.slots]
        if free:
            return free[0]
        copies = sorted(list(self.slots.values())[1:], key=lambda player: player.filled)
        return (copies[0] if self.replace == "oldest" else _most_crowded(copies)).id

    def fill(self, slot: str, parent: str, name: str, elo: float, iteration: int, steps: int) -> None:
        """Notes that a slot holds a new copy from now on."""
        number = 1 + max((player.filled for player in self.slots.values()), default=-1)
        self.slots[slot] = PoolMember(slot, parent, name, elo, iteration, steps, number)
        self.payoff.forget(self.ids.index(slot))

    def frozen(self, learner: str, iteration: int, steps: int, anew: bool) -> None:
        """Notes that a learner was copied. `anew`: it was then reset to the untrained policy."""
        player = self.learners[learner]
        player.iteration, player.steps = iteration, steps
        self.snapshots += 1
        if learner == self.first.id:
            self.games_since = 0
        if anew:
            player.elo = 0.0
            self.payoff.forget(self.ids.index(learner))

    # -- what others read --------------------------------------------------------------------------------------------

    @property
    def win_rate(self) -> float:
        """Mean result of the first learner's newest games against frozen copies; NaN before the first of them."""
        return float(np.mean([result for result, *_ in self.recent])) if self.recent else math.nan

    def metrics(self) -> dict[str, float | dict[str, float]]:
        """The numbers that a result logs under self_play/; rates are NaN before the first game."""
        _, draws, lengths = zip(*self.recent, strict=True) if self.recent else ([math.nan],) * 3
        numbers: dict[str, float | dict[str, float]] = {
            "elo": self.first.elo,
            "win_rate": self.win_rate,
            "draw_rate": float(np.mean(draws)),
            "game_length": float(np.mean(lengths)),
            "snapshots": self.snapshots,
        }
        if len(self.learners) > 1:
            numbers["elo_of"] = {module_id: player.elo for module_id, player in self.learners.items()}
        return numbers

    def table(self) -> PoolTable:
        """Learners, then copies by their age, with their ratings and win rates."""
        players = [*self.learners.values(), *sorted(self.slots.values(), key=lambda player: player.filled)]
        numbers = [self.ids.index(player.id) for player in players]
        rates = {row: self.payoff.win_rates(row, numbers).tolist() for row in numbers}
        games = {row: self.payoff.games[row, numbers] > 0 for row in numbers}
        known = [[rate if there else None for rate, there in zip(rates[n], games[n], strict=True)] for n in numbers]
        names = [player.name or player.id for player in players]
        return {"players": names, "elo": [player.elo for player in players], "win_rates": known}

    def get_state(self) -> PoolState:
        """Everything but weights, in plain types and arrays, for `set_state`."""
        return {
            "learners": {module_id: asdict(player) for module_id, player in self.learners.items()},
            "slots": {slot: asdict(player) for slot, player in self.slots.items()},
            "payoff": self.payoff.get_state(),
            "recent": list(self.recent),
            "games_since": self.games_since,
            "snapshots": self.snapshots,
            "generator": self.rng.bit_generator.state,
        }

    def set_state(self, state: PoolState) -> None:
        """Restores an earlier `get_state` of a pool with the same learners and slots."""
        self.learners = {module_id: PoolMember(**fields) for module_id, fields in state["learners"].items()}
        self.slots = {slot: PoolMember(**fields) for slot, fields in state["slots"].items()}
        self.payoff.set_state(state["payoff"])
        self.recent.clear()
        self.recent.extend(state["recent"])
        self.games_since, self.snapshots = state["games_since"], state["snapshots"]
        self.rng.bit_generator.state = state["generator"]


def _most_crowded(copies: Sequence[PoolMember]) -> PoolMember:
    """See `Pool.next_slot`; the oldest where every copy is its learner's newest. `copies`: by age, the oldest first."""
    spans: list[tuple[int, PoolMember]] = []
    for parent in {player.parent: None for player in copies}:
        of_one = [player for player in copies if player.parent == parent]
        before = [0, *(player.steps for player in of_one)]
        spans += [
            (after.steps - start, player) for start, player, after in zip(before, of_one, of_one[1:], strict=False)
        ]
    return min(spans, key=lambda span: span[0])[1] if spans else copies[0]
