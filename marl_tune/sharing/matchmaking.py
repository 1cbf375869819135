"""Who plays whom in the next game: learners and their sides by turns, opponents by probabilities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

Table = dict[str, dict[str, float]]  # learner -> player -> share of its games; its own share: it plays all sides


class Matchmaker:
    """Draws the modules of one episode.

    The episodes of a copy of the world take turns: in one after the other the learner plays each of the sides, then the
    next learner does. Of an episode only the experience of the learner whose turn it is is learned from.

    Args:
        sides: side -> its agents.
        learners: module ids, in the order of their turns. Until `table` is set each plays all sides itself.
    """

    def __init__(self, sides: Mapping[str, Sequence[str]], learners: Sequence[str]):
        self.sides, self.learners = {side: tuple(agents) for side, agents in sides.items()}, list(learners)
        self.table: Table = {learner: {learner: 1.0} for learner in learners}

    def learner(self, turn: int) -> str:
        """Whose experience of the game is learned from."""
        return self.learners[turn // len(self.sides) % len(self.learners)]

    def draw(self, rng: np.random.Generator, turn: int) -> dict[str, str]:
        """Agent id -> module id. Every other side draws an opponent of its own."""
        learner, own = self.learner(turn), turn % len(self.sides)
        shares = self.table[learner]
        mirrors = rng.random() < shares.get(learner, 0.0)
        others = {player: share for player, share in shares.items() if player != learner and share > 0}
        modules: dict[str, str] = {}
        for number, agents in enumerate(self.sides.values()):
            player = learner if mirrors or number == own or not others else _drawn(others, rng)
            modules |= dict.fromkeys(agents, player)
        return modules


def _drawn(shares: Mapping[str, float], rng: np.random.Generator) -> str:
    weights = np.fromiter(shares.values(), np.float64)
    return list(shares)[int(rng.choice(len(weights), p=weights / weights.sum()))]


def prioritised(win_rates: np.ndarray, weighting: str, exponent: float = 2.0) -> np.ndarray:
    """Prioritised fictitious self-play (Vinyals et al. 2019, https://doi.org/10.1038/s41586-019-1724-z, Methods).

    Args:
        win_rates: (n,) of the learner against each opponent, [0, 1].
        weighting: hard: (1 - p)^exponent | variance: p (1 - p) | capped: min(0.5, 1 - p), of their pseudocode.
        exponent: of the hard weighting.

    Returns:
        (n,) shares that add up to 1; equal ones where every weight is 0 (their pseudocode: below 1e-10).
    """
    weights = {
        "hard": (1 - win_rates) ** exponent,
        "variance": win_rates * (1 - win_rates),
        "capped": np.minimum(0.5, 1 - win_rates),
    }[weighting]
    total = weights.sum()
    return np.full(len(win_rates), 1 / len(win_rates)) if total < 1e-10 else weights / total
