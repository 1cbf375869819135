"""Who is measured, as data: each contestant is a command of its own that prints one JSON object."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass


@dataclass(frozen=True)
class Effort:
    """How long everything is measured."""

    rounds: int  # each contestant runs once in each, in a process of its own
    fast: int  # measured iterations of a contestant whose iteration takes about a second
    slow: int  # of one whose iteration takes some seconds
    warmup: int  # iterations left out before
    pbt: int  # iterations of each trial of the PBT comparison


FULL = Effort(rounds=3, fast=5, slow=3, warmup=2, pbt=16)
QUICK = Effort(rounds=1, fast=2, slow=1, warmup=1, pbt=6)


@dataclass(frozen=True)
class Contestant:
    """A command; `{fast}` and the other names of an `Effort` in its words are filled in."""

    words: tuple[str, ...]  # after `python -m`
    timeout_s: float
    takes_threads: bool = True

    def command(self, effort: Effort, threads: int) -> list[str]:
        """The words after `python`."""
        filled = [word.format(**dataclasses.asdict(effort)) for word in self.words]
        return ["-m", *filled, "--json", *(["--threads", str(threads)] if self.takes_threads else [])]


def _on_work(work: str, module: str, pace: str, *words: str) -> Contestant:
    measured = ("--iterations", f"{{{pace}}}", "--warmup", "{warmup}")
    return Contestant((f"benchmarks.{module}", "--work", work, *words, *measured), timeout_s=240)


CONTESTANTS = {
    "W2 ours": _on_work("W2", "throughput", "fast"),
    "W2 stock": _on_work("W2", "reference.rllib_ppo", "slow", "--envs", "8"),
    "W2 by hand, 8 envs": _on_work("W2", "reference.hand_ppo", "fast", "--envs", "8"),
    "W2 by hand, 50 envs": _on_work("W2", "reference.hand_ppo", "fast", "--envs", "50"),
    "W2 floor": _on_work("W2", "reference.floor", "fast"),
    "W1 one process": _on_work("W1", "throughput", "slow", "--world", "pettingzoo"),
    "W1 two workers": _on_work("W1", "throughput", "slow", "--world", "pettingzoo", "--workers", "2"),
    "W1 floor": _on_work("W1", "reference.floor", "slow", "--world", "pettingzoo"),
    "W1 batched": _on_work("W1", "throughput", "fast", "--world", "batched"),
    "start": Contestant(("benchmarks.startup", "--rounds", "1"), timeout_s=400),
    "pbt": Contestant(("benchmarks.pbt_cost", "--rounds", "1", "--iterations", "{pbt}"), 600, takes_threads=False),
}
