"""Who plays the next game: learners and their sides take turns, opponents are drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

Table = dict[str, dict[str, float]]
# learner -> module id of the opponent -> share of the learner's games; its own id: it plays all sides of those games


class Matchmaker:
    """Draws the modules of one episode.

    The learners take turns, episode by episode in each copy of the world. A learner plays one episode on each side,
    then it is the next learner's turn. Only the learner whose turn it is learns from an episode.

    Args:
        sides: side -> its agents.
        learners: module ids, in the order of their turns. Until `table` is set, each plays all sides itself.
    """

    def __init__(self, sides: Mapping[str, Sequence[str]], learners: Sequence[str]):
        self.sides, self.learners = {side: tuple(agents) for side, agents in sides.items()}, list(learners)
        self.table: Table = {learner: {learner: 1.0} for learner in learners}

    def learner(self, turn: int) -> str:
        """The learner that learns from the episode with this number."""
        return self.learners[turn // len(self.sides) % len(self.learners)]

    def draw(self, rng: np.random.Generator, turn: int) -> dict[str, str]:
        """Agent id -> module id, for one episode. For each of the other sides an opponent is drawn."""
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
        win_rates: (n,) win rates p of the learner against each opponent, in [0, 1].
        weighting: hard: (1 - p)^exponent | variance: p (1 - p) | capped: min(0.5, 1 - p), as in their pseudocode.
        exponent: of the hard weighting.

    Returns:
        (n,) shares that sum to 1. They are equal where the weights sum to less than 1e-10, as in their pseudocode.
    """
    weights = {
        "hard": (1 - win_rates) ** exponent,
        "variance": win_rates * (1 - win_rates),
        "capped": np.minimum(0.5, 1 - win_rates),
    }[weighting]
    total = weights.sum()
    return np.full(len(win_rates), 1 / len(win_rates)) if total < 1e-10 else weights / total
