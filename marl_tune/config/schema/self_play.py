"""The settings of `sharing=self_play` and `sharing=league`: learners that play against frozen copies of themselves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from marl_tune.config.errors import invalid
from marl_tune.config.range_checks import above, at_least, one_of, within, word
from marl_tune.config.schema.sharing import SharingConfig
from marl_tune.config.schema.sweep import SweepConfig


@dataclass
class VersusConfig(SharingConfig):
    """What both schemes share: who plays against whom, and where frozen copies are kept."""

    NAMES: ClassVar[tuple[str, ...]] = ("self_play", "league")

    sides: dict[str, list[str]]  # side -> patterns of its agents, as in roles; {}: every agent is a side of its own
    pool_size: int  # slots for frozen copies, at least 2: the first holds the untrained policy for ever
    replace: str  # copy that makes room in a full pool; crowded: see `Pool.next_slot` | oldest
    elo_k: float  # most points that a rating moves by one game (Elo's K), above 0

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("sharing.pool_size", self.pool_size, 2)
        one_of("sharing.replace", self.replace, ("crowded", "oldest"))
        above("sharing.elo_k", self.elo_k, 0)
        if len(self.sides) == 1:
            raise invalid("sharing.sides", "name at least two sides, or none", sorted(self.sides))
        for side, patterns in self.sides.items():
            word("sharing.sides", side)
            if len(patterns) == 0 or not all(patterns):
                raise invalid(f"sharing.sides.{side}", "hold at least one pattern", patterns)


@dataclass
class SnapshotConfig:
    """When the learner is copied into the pool: whichever comes first."""

    games: int  # newest games against the pool that its win rate speaks of, at least 1; all since the last copy
    win_rate: float  # mean result of those (win 1, draw 0.5, loss 0) that makes a copy, (0, 1]
    every: int | None  # iterations since the last copy that make one, at least 1; null: only the win rate does

    def __post_init__(self) -> None:
        at_least("sharing.snapshot.games", self.games, 1)
        at_least("sharing.snapshot.every", self.every, 1)
        if not 0 < self.win_rate <= 1:
            raise invalid("sharing.snapshot.win_rate", "be above 0 and at most 1", self.win_rate)


@dataclass
class SelfPlayConfig(VersusConfig):
    """One learner, `main`, against a pool of its own past; the scheme of a slot's weight in `opponents`.

    p is main's win rate against the slot.
    """

    snapshot: SnapshotConfig  # when main is copied
    opponents: str  # uniform: each slot as often | latest: the newest | prioritised: by `weighting`
    weighting: str  # hard: (1 - p)^exponent, those that main loses to | variance: p (1 - p), those of its strength
    exponent: float  # of the hard weighting, at least 0; 0: uniform
    mirror: float  # share of games in which main plays all sides itself, [0, 1]

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("sharing.opponents", self.opponents, ("uniform", "latest", "prioritised"))
        one_of("sharing.weighting", self.weighting, ("hard", "variance"))
        at_least("sharing.exponent", self.exponent, 0)
        within("sharing.mirror", self.mirror, 0, 1)


@dataclass
class MatchSharesConfig:
    """Whom a main agent plays; the three add up to 1."""

    past: float  # frozen players of all kinds, by prioritised fictitious self-play, [0, 1]
    self_play: float  # main agents as they are now, itself among them, [0, 1]
    verification: float  # frozen exploiters and forgotten selves that still win; self-play while there are none, [0, 1]

    def __post_init__(self) -> None:
        for key in ("past", "self_play", "verification"):
            within(f"sharing.shares.{key}", getattr(self, key), 0, 1)
        total = self.past + self.self_play + self.verification
        if abs(total - 1) > 1e-6:
            raise invalid("sharing.shares", "add up to 1", total)


@dataclass
class FreezeConfig:
    """When a learner is frozen into a slot. Steps are the trial's agent-steps since it was frozen or reset last."""

    win_rate: float  # win rate against each of those that it is there to beat, (0, 1]
    min_steps: int  # steps before that counts, at least 0
    max_steps: int  # steps after which it is frozen anyway, at least min_steps and 1

    def __post_init__(self) -> None:
        if not 0 < self.win_rate <= 1:
            raise invalid("sharing.freeze.win_rate", "be above 0 and at most 1", self.win_rate)
        at_least("sharing.freeze.min_steps", self.min_steps, 0)
        at_least("sharing.freeze.max_steps", self.max_steps, max(1, self.min_steps))


@dataclass
class LeagueConfig(VersusConfig):
    """A league of learners (Vinyals et al. 2019, https://doi.org/10.1038/s41586-019-1724-z); see league.py."""

    main_agents: int  # learners that are to beat everybody, at least 1; the first is the policy that the trial yields
    main_exploiters: int  # learners that look for the main agents' weaknesses, at least 0
    league_exploiters: int  # learners that look for weaknesses of the whole league, at least 0
    shares: MatchSharesConfig  # whom a main agent plays
    freeze: FreezeConfig  # when a learner is frozen
    reset: float  # chance that a frozen league exploiter begins anew, [0, 1]; a main exploiter always does
    games: int  # newest games against the pool that the logged rates speak of, at least 1

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("sharing.main_agents", self.main_agents, 1)
        at_least("sharing.main_exploiters", self.main_exploiters, 0)
        at_least("sharing.league_exploiters", self.league_exploiters, 0)
        within("sharing.reset", self.reset, 0, 1)
        at_least("sharing.games", self.games, 1)


def has_opponents(sweep: SweepConfig) -> bool:
    """Whether learners play against each other and frozen copies."""
    return isinstance(sweep.sharing, VersusConfig)
