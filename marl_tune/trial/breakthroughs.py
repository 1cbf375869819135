"""Breakthroughs: the return of the team, or of one agent, rises further than chance explains.

Of each return there is a window, its last W finished episodes, and a baseline, the n episodes before that window since
its last breakthrough. As long as nothing changes, both are samples of one level. So their means are compared, and
measured by the standard deviation of just that difference:

    window mean - baseline mean  >  k s sqrt(1/W + 1/n),    s = max(s_window, s_baseline)

Not by the deviation of single episodes: a mean of W scatters sqrt(W) times less, and three deviations of an episode
would pass over nearly every rise of a learning curve. And by the larger of both deviations, not each mean by its own
(Welch): where nearly all episodes succeed, W successes in a row are common, and have no deviation at all. The rule is
asked after every episode, so three deviations are not rare: of returns that are pure noise, one in four has an event
within 2000 episodes with k = 3, one in 80 with k = 4, one in 3000 with k = 5 (10,000 returns, W = 50). Episodes count
as independent; a return that drifts for reasons of its own does rise.

One climb is one breakthrough. After it the return is not looked at until its window is no higher than the W episodes
before that; then the baseline begins anew with the level reached, and needs `min_episodes` again. A climb so slow that
neighbouring windows do not differ counts once for each baseline that it passes. A fall begins no baseline: the way back
from a short one is none.

Variances by the update over blocks of Chan, Golub and LeVeque 1983 (https://doi.org/10.1080/00031305.1983.10483115),
after Welford 1962. All returns at once in NumPy; the result does not depend on how the episodes are cut into blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from marl_tune.config.schema.sweep import BreakthroughConfig
from marl_tune.results.metrics import COUNT, FREQUENCY, TEAM

ROUNDING = 1e-9  # share of the largest return that says nothing
ARRAYS = ("last", "age", "climbing", "mean", "squares")  # of the detector, saved and restored


@dataclass(frozen=True)
class Breakthrough:
    """One event, at the first episode that satisfies the rule."""

    who: str  # team, or an agent's id
    level: float  # mean of the window, in the return's unit
    baseline: float  # mean of the episodes before
    deviation: float  # standard deviation of the difference of two such means


class BreakthroughDetector:
    """Hears of a trial's finished episodes in their order.

    Args:
        rules: window, deviations, min_episodes.
        agents: ids of the agents. A lone agent's return is the team's and not looked at twice.
    """

    def __init__(self, rules: BreakthroughConfig, agents: Sequence[str]):
        self.rules = rules
        self.episodes = 0  # heard of so far
        self.count = 0  # breakthroughs so far
        self.begin_world(agents)

    def begin_world(self, agents: Sequence[str]) -> None:
        """Goes on in another world, with perhaps other agents: baselines begin anew, counts go on."""
        self.names = [TEAM, *agents] if len(agents) > 1 else [TEAM]
        streams = len(self.names)
        self._last = np.zeros((2 * self.rules.window, streams))  # newest episodes, oldest first
        self._age = np.zeros(streams, np.int64)  # episodes that count: the baseline's and the window's
        self._climbing = np.zeros(streams, bool)  # between a breakthrough and the end of its climb
        self._mean = np.zeros(streams)  # of the baseline; what it is relative to where that is empty
        self._squares = np.zeros(streams)  # sum of squared differences from it

    def add(self, returns: np.ndarray) -> list[Breakthrough]:
        """Takes in the next finished episodes, (episodes, agents), and tells of the breakthroughs among them."""
        if len(returns) == 0:
            return []
        streams = returns.sum(axis=1, keepdims=True)
        if len(self.names) > 1:
            streams = np.concatenate([streams, returns], axis=1)
        if not self._age.any():  # the first episodes of the world
            self._last[:] = streams[0]  # not 0, which may be far away: sums of squares would lose digits
        block = _Block(np.concatenate([self._last, streams]), self.rules.window)
        found = self._follow(block)
        self._last = block.history[-len(self._last) :].copy()
        self.episodes += len(returns)
        self.count += len(found)
        return [event for _, _, event in sorted(found, key=lambda entry: entry[:2])]

    def _follow(self, block: _Block) -> list[tuple[int, int, Breakthrough]]:
        """Each return through the block, from one change of its state to the next; (row, return, event) of all."""
        found = []
        origin = -1 - self._age  # row at which a return's age was 0
        since = np.full(len(self.names), -1)  # row of its newest breakthrough
        todo = np.arange(len(self.names))
        while len(todo):
            climbs = self._climbing[todo]
            rising, armed = todo[climbs], todo[~climbs]
            # Where a climb has ended, the window stays, and the baseline is empty.
            over, row = _first(block.flat(rising) & (block.rows > since[rising]))
            ended = rising[over]
            self._climbing[ended], origin[ended] = False, row - block.window
            self._mean[ended], self._squares[ended] = block.mean[row, ended], 0.0
            # Where a return breaks through, its climb begins; else its baseline takes in what has left the window.
            means, squares, deviations = self._baselines(block, armed, origin)
            margin = block.mean[:, armed] - means - block.rounding[armed]
            old_enough = block.rows >= origin[armed] + self.rules.min_episodes
            through, row = _first(old_enough & (margin > self.rules.deviations * deviations))
            risen = armed[through]
            self._climbing[risen], since[risen] = True, row
            for r, stream, column in zip(row.tolist(), risen.tolist(), np.flatnonzero(through).tolist(), strict=True):
                numbers = block.mean[r, stream], means[r, column], deviations[r, column]
                found.append((r, stream, Breakthrough(self.names[stream], *map(float, numbers))))
            grown = ~through & (origin[armed] + block.window < len(block.rows) - 1)
            same = armed[grown]
            self._mean[same], self._squares[same] = means[-1, grown], squares[-1, grown]
            todo = np.concatenate([ended, risen])
        self._age = len(block.rows) - 1 - origin
        return found

    def _baselines(self, block: _Block, streams: np.ndarray, origin: np.ndarray) -> tuple[np.ndarray, ...]:
        """After each episode (rows, streams): mean and squares of the baseline, deviation of the window's mean from it.

        Says nothing where the baseline has fewer than two episodes; `min_episodes` sees to that.
        """
        start = np.maximum(origin[streams] + block.window + 1, 0)  # row from which on what leaves the window counts
        old = np.maximum(-1 - origin[streams] - block.window, 0)
        new = np.maximum(block.rows + 1.0 - start, 1.0)
        sums, squares = block.leaving(streams, start)
        apart = block.centre[streams] + sums / new - self._mean[streams]
        number = old + new
        share = new / number
        means = self._mean[streams] + apart * share
        squares += self._squares[streams] - np.square(sums) / new + np.square(apart) * (old * share)
        variance = np.maximum(squares / np.maximum(number - 1.0, 1.0), block.variance[:, streams])
        return means, squares, np.sqrt(variance * (1 / block.window + 1 / number))

    def metrics(self) -> dict[str, float]:
        """What a result logs: events so far, and events a thousand finished episodes (NaN before the first)."""
        return {COUNT: self.count, FREQUENCY: 1000 * self.count / self.episodes if self.episodes else float("nan")}

    def get_state(self) -> dict[str, Any]:
        """All that is known of the episodes so far, in plain types and arrays; `set_state` takes it back."""
        plain = {"window": self.rules.window, "names": self.names, "episodes": self.episodes, "count": self.count}
        return plain | {name: getattr(self, f"_{name}").copy() for name in ARRAYS}

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes on from an earlier `get_state`; one of other agents or another window is left alone."""
        if (state["window"], state["names"]) != (self.rules.window, self.names):
            return
        self.episodes, self.count = state["episodes"], state["count"]
        for name in ARRAYS:
            setattr(self, f"_{name}", state[name].copy())


class _Block:
    """Some episodes of all returns with the 2 W before them, and what can be said of each row alone.

    Args:
        history: (2 W + rows, streams), oldest first.
        window: W.
    """

    def __init__(self, history: np.ndarray, window: int):
        self.history, self.window = history, window
        self.rows = np.arange(len(history) - 2 * window)[:, None]
        self.centre = history.mean(axis=0)  # so that squares do not swamp what differs
        self.rounding = ROUNDING * np.abs(history).max(axis=0)
        centred = history - self.centre
        self._sums, self._squares = _running_sums(centred), _running_sums(np.square(centred))
        self._means = (self._sums[window:] - self._sums[:-window]) / window  # of all windows of the history
        inside = self._means[window + 1 :]
        scatter = self._squares[2 * window + 1 :] - self._squares[window + 1 : -window] - window * np.square(inside)
        self.mean = self.centre + inside  # (rows, streams): of the window
        self.variance = np.maximum(scatter, 0.0) / (window - 1)  # of the window

    def leaving(self, streams: np.ndarray, start: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(rows, streams): sums over what the rows since `start` have pushed out of the window, and of its squares.

        Of what differs from `centre`. Earlier rows say nothing.
        """
        sums, squares = (
            running[self.window + 1 : -self.window, streams] - running[self.window + start, streams]
            for running in (self._sums, self._squares)
        )
        return sums, squares

    def flat(self, streams: np.ndarray) -> np.ndarray:
        """(rows, streams): whether the window is no higher than the one before it."""
        before = self.centre[streams] + self._means[1 : -self.window, streams]
        return self.mean[:, streams] <= before + self.rounding[streams]


def _running_sums(values: np.ndarray) -> np.ndarray:
    """Sums over the rows before each row, and over all: one row more."""
    sums = np.zeros((len(values) + 1, values.shape[1]))
    np.cumsum(values, axis=0, out=sums[1:])
    return sums


def _first(holds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of (rows, streams): in which streams it holds at all, and the first row of each of those."""
    row = holds.argmax(axis=0)
    ever = holds[row, np.arange(holds.shape[1])]
    return ever, row[ever]
