"""Breakthroughs: a jump of the recent mean return of the team or of one agent.

For each return there is a window, the last W finished episodes, and a baseline, the n episodes between its last
breakthrough and the window. If nothing changes, both are samples of one distribution. So the difference of their means
is compared with the standard deviation of that difference:

    window mean - baseline mean  >  k s sqrt(1/W + 1/n),    s = max(s_window, s_baseline)

- The rule does not use the deviation of single episodes. The deviation of a mean of W episodes is sqrt(W) times
  smaller; with three deviations of one episode nearly every rise of a learning curve would be missed.
- The rule uses the larger deviation, not one for each mean (Welch). Where nearly all episodes succeed, W successes in a
  row are common and have no deviation.
- The rule is tested after every episode, so three deviations are not rare. Of returns that are pure noise, one in four
  has a breakthrough within 2000 episodes with k = 3, one in 80 with k = 4, one in 3000 with k = 5 (10,000 returns,
  W = 50). Episodes are assumed to be independent; a return that drifts for other reasons does count as rising.

One rise is one breakthrough. After it, no breakthrough is looked for until the mean of the window is no higher than the
mean of the W episodes before the window. Then a new baseline starts at the level reached, and needs `min_episodes`
again. A rise so slow that neighbouring windows do not differ counts once for each baseline that it exceeds. A fall
starts no new baseline, so the recovery from a short fall is no breakthrough.

Variances are updated block by block after Chan, Golub and LeVeque 1983
(https://doi.org/10.1080/00031305.1983.10483115) and Welford 1962, for all returns at once in NumPy. The result does not
depend on how the episodes are divided into blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict, cast

import numpy as np

from marl_tune.config.schema.sweep import BreakthroughConfig
from marl_tune.results.metrics import COUNT, FREQUENCY, TEAM

ROUNDING = 1e-9  # differences below this share of the largest return count as rounding errors
ARRAYS = ("last", "age", "climbing", "mean", "squares")  # of the detector, saved and restored


@dataclass(frozen=True)
class Breakthrough:
    """One breakthrough, at the first episode that satisfies the rule."""

    who: str  # "team", or an agent's id
    level: float  # mean of the window, in the return's unit
    baseline: float  # mean of the episodes before
    deviation: float  # standard deviation of the difference of two such means


class DetectorState(TypedDict):
    """What a checkpoint keeps of a detector; the arrays are those of `ARRAYS`, one entry for each return."""

    window: int
    names: list[str]
    episodes: int
    count: int
    last: np.ndarray
    age: np.ndarray
    climbing: np.ndarray
    mean: np.ndarray
    squares: np.ndarray


class BreakthroughDetector:
    """Looks for breakthroughs in a trial's finished episodes, which it is given in their order.

    Args:
        rules: window, deviations, min_episodes.
        agents: ids of the agents. The return of a single agent is the team's, and is looked at once.
    """

    def __init__(self, rules: BreakthroughConfig, agents: Sequence[str]):
        self.rules = rules
        self.episodes = 0  # finished so far
        self.count = 0  # breakthroughs so far
        self.begin_world(agents)

    def begin_world(self, agents: Sequence[str]) -> None:
        """Continues in another world, perhaps with other agents: baselines start anew, counts go on."""
        self.names = [TEAM, *agents] if len(agents) > 1 else [TEAM]
        streams = len(self.names)
        self._last = np.zeros((2 * self.rules.window, streams))  # newest episodes, oldest first
        self._age = np.zeros(streams, np.int64)  # episodes that count: the baseline's and the window's
        self._climbing = np.zeros(streams, bool)  # between a breakthrough and the end of its climb
        self._mean = np.zeros(streams)  # of the baseline; where that is empty, the origin of its sums
        self._squares = np.zeros(streams)  # sum of squared differences from it

    def add(self, returns: np.ndarray) -> list[Breakthrough]:
        """Takes in the returns (episodes, agents) of the next finished episodes, and returns their breakthroughs."""
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
        """Follows each return through the block, from one change of its state to the next.

        Returns:
            (row, number of the return, breakthrough) of each breakthrough.
        """
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
        """Arrays (rows, streams), after each episode: the baseline's mean and sum of squares, and s sqrt(1/W + 1/n).

        They are not valid where the baseline has fewer than two episodes; `min_episodes` excludes that.
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
        """Breakthroughs so far, and breakthroughs per thousand finished episodes (NaN before the first episode)."""
        return {COUNT: self.count, FREQUENCY: 1000 * self.count / self.episodes if self.episodes else float("nan")}

    def get_state(self) -> DetectorState:
        """The counts and the statistics of the episodes so far, for `set_state`."""
        plain = {"window": self.rules.window, "names": self.names, "episodes": self.episodes, "count": self.count}
        return cast(DetectorState, plain | {name: getattr(self, f"_{name}").copy() for name in ARRAYS})

    def set_state(self, state: DetectorState) -> None:
        """Continues from an earlier `get_state`. A state of other agents or another window is ignored."""
        if (state["window"], state["names"]) != (self.rules.window, self.names):
            return
        self.episodes, self.count = state["episodes"], state["count"]
        for name in ARRAYS:
            setattr(self, f"_{name}", cast(dict[str, np.ndarray], state)[name].copy())


class _Block:
    """Some episodes of all returns, the 2 W episodes before them, and statistics of the window at each row.

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
        """Arrays (rows, streams): the sum of what has left the window since row `start`, and the sum of its squares.

        Both are of differences from `centre`. Rows before `start` are not valid.
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
    """Of a condition (rows, streams): the streams in which it holds at all, and the first row for each of those."""
    row = holds.argmax(axis=0)
    ever = holds[row, np.arange(holds.shape[1])]
    return ever, row[ever]
