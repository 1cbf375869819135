"""What is claimed of marl_tune's speed, as data: who is compared with whom, by which figure, and the target."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from benchmarks.measure import spread

Result = Mapping[str, Any]  # the object that a contestant prints
Round = Mapping[str, Result]  # contestant -> what it printed in one round; those that failed are missing


@dataclass(frozen=True)
class Figure:
    """One number a round: the greatest of the contestants named."""

    contestants: tuple[str, ...]
    read: Callable[[Result], float | None]

    def of(self, results: Round) -> float | None:
        """The number; None where a contestant failed or could not measure it."""
        values = [self.read(results[name]) if name in results else None for name in self.contestants]
        known = [value for value in values if value is not None]
        return max(known) if len(known) == len(values) else None


@dataclass(frozen=True)
class Claim:
    """`ours`, or `ours` divided by `other`, is at least (or at most) the target."""

    part: str  # name by which --only finds it
    text: str
    unit: str  # of ours and other
    ours: Figure
    other: Figure | None
    at_least: bool
    target: float

    @property
    def contestants(self) -> set[str]:
        """Who has to run."""
        return {name for figure in (self.ours, self.other) if figure is not None for name in figure.contestants}

    def judge(self, rounds: Sequence[Round]) -> dict[str, Any]:
        """The claim in numbers: medians over the rounds; null where no round had all of them.

        Divided is within each round: a machine's speed drifts between them.
        """
        pairs = [(self.ours.of(results), 1.0 if self.other is None else self.other.of(results)) for results in rounds]
        both = [(ours, other) for ours, other in pairs if ours is not None and other is not None]
        figure = spread([ours / other for ours, other in both]) if both else None
        median = None if figure is None else figure["median"]
        return {
            "part": self.part,
            "text": self.text,
            "unit": self.unit,
            "ours": spread([ours for ours, _ in both]) if both else None,
            "other": spread([other for _, other in both]) if both and self.other is not None else None,
            "figure": figure,
            "at_least": self.at_least,
            "target": self.target,
            "met": None if median is None else median >= self.target if self.at_least else median <= self.target,
        }


def _median(of: str, *contestants: str) -> Figure:
    return Figure(contestants, lambda result: result[of]["median"])


_rate = partial(_median, "agent_steps_per_s")
_rate_fused = partial(_median, "agent_steps_per_s_fused")
_sampling = partial(_median, "sampled_per_s")
_learning = partial(_median, "learning_s")
_fused = partial(_median, "learning_fused_s")


def _memory(contestant: str) -> Figure:
    return Figure((contestant,), lambda result: (result["memory"] or {}).get("process_mb"))


def _start(whose: str) -> Figure:
    return Figure(("start",), lambda result: result["seconds"][whose]["median"])


def _pbt(variant: str) -> Figure:
    return Figure(("pbt",), lambda result: result["median_seconds"][variant])


W2_STOCK, W2_HAND = "W2 stock", ("W2 by hand, 8 envs", "W2 by hand, 50 envs")
W2, W2_FLOOR, W1, W1_FLOOR = "W2 ours", "W2 floor", "W1 one process", "W1 floor"
RATE, S = "agent-steps/s", "s"
AT_LEAST, AT_MOST = True, False

CLAIMS = (
    Claim("W2", "against stock RLlib", RATE, _rate(W2), _rate(W2_STOCK), AT_LEAST, 6),
    Claim("W2", "against PPO by hand (better of 8, 50 envs)", RATE, _rate(W2), _rate(*W2_HAND), AT_LEAST, 1),
    Claim("W2", "against the floor with Adam", RATE, _rate(W2), _rate(W2_FLOOR), AT_LEAST, 0.8),
    Claim("W2", "against the floor with fused Adam", RATE, _rate(W2), _rate_fused(W2_FLOOR), AT_LEAST, 0.8),
    Claim("W1", "PettingZoo, one process, against the floor", RATE, _rate(W1), _rate(W1_FLOOR), AT_LEAST, 0.85),
    Claim("W1", "PettingZoo, 2 workers against none", RATE, _rate("W1 two workers"), _rate(W1), AT_LEAST, 1.6),
    Claim("W1", "batched world", RATE, _rate("W1 batched"), None, AT_LEAST, 50_000),
    Claim("sampling", "W2 against stock RLlib", RATE, _sampling(W2), _sampling(W2_STOCK), AT_LEAST, 10),
    Claim("learner", "W1 against bare nets with Adam", S, _learning(W1), _learning(W1_FLOOR), AT_MOST, 1.25),
    Claim("learner", "W1 against bare nets with fused Adam", S, _learning(W1), _fused(W1_FLOOR), AT_MOST, 1.25),
    Claim("learner", "W2 against bare nets with Adam", S, _learning(W2), _learning(W2_FLOOR), AT_MOST, 1.25),
    Claim("learner", "W2 against bare nets with fused Adam", S, _learning(W2), _fused(W2_FLOOR), AT_MOST, 1.25),
    Claim("pbt", "a sweep with PBT against one without", S, _pbt("pbt"), _pbt("no scheduler"), AT_MOST, 1.05),
    Claim("start", "command to first row, against stock Tune", S, _start("marl_tune"), _start("stock"), AT_MOST, 0.8),
    Claim("memory", "peak of a trial's process, against stock", "MiB", _memory(W2), _memory(W2_STOCK), AT_MOST, 1),
)
PARTS = tuple(dict.fromkeys(claim.part for claim in CLAIMS))
