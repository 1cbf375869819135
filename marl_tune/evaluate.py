"""`python -m marl_tune.evaluate PATH`: plays a trained policy and prints its numbers. It starts no Ray cluster."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from marl_tune.config.errors import ConfigError
from marl_tune.results.checkpoint_folder import find_policy


def main(words: Sequence[str] | None = None) -> int:
    """Runs the command.

    Returns:
        0, or 2 with one line on stderr where PATH has no policy or a number is out of range.
    """
    arguments = _parser().parse_args(words)
    try:
        if arguments.episodes is not None and arguments.episodes < 1:
            raise ConfigError(f"--episodes must be at least 1, got {arguments.episodes}")
        if arguments.seed is not None and arguments.seed < 0:
            raise ConfigError(f"--seed must be at least 0, got {arguments.seed}")
        checkpoint = find_policy(arguments.path, "PATH")
        result, show = (_alone if arguments.against is None else _against)(checkpoint, arguments)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if arguments.json:
        print(json.dumps(result))
    else:
        print(show(result))
    return 0


Result = Mapping[str, Any]  # the numbers of an evaluation, in JSON's types
Show = Callable[[Any], str]  # such numbers -> text for a terminal


def _alone(folder: Path, arguments: argparse.Namespace) -> tuple[Result, Show]:
    """The returns of the policy where it plays all agents."""
    return evaluate(folder, arguments.episodes, arguments.seed, arguments.explore), _table


def _against(folder: Path, arguments: argparse.Namespace) -> tuple[Result, Show]:
    """Wins, draws and losses against a scripted player, and how they are shown."""
    from marl_tune.cluster.ray_quiet import quiet_ray

    quiet_ray()
    from marl_tune.evaluation.scripted_opponents import as_table, play_against

    explore = bool(arguments.explore)
    return play_against(folder, arguments.against, arguments.episodes, arguments.seed, explore), as_table


def evaluate(folder: Path, episodes: int | None = None, seed: int | None = None, explore: bool | None = None) -> Result:
    """Plays the policy of a checkpoint folder.

    Args:
        folder: of the checkpoint.
        episodes: number of episodes; default: that of the sweep's selection.
        seed: of the first episode; the next episode has the next seed. Default: the selection's seed, so that the
            numbers equal those of the sweep.
        explore: True: actions are drawn from the policy; False: the most likely is taken; default: as in selection.

    Returns:
        The numbers of `marl_tune.evaluation.selection.describe`, with `checkpoint`, `metric`, `seed` and `explore`.
    """
    from marl_tune.cluster.ray_quiet import quiet_ray

    quiet_ray()
    from marl_tune.evaluation.play import evaluate_checkpoint
    from marl_tune.evaluation.selection import describe
    from marl_tune.results import checkpoint_files

    sweep = checkpoint_files.load_sweep(folder)
    rules = sweep.selection
    first = rules.seed if seed is None else seed
    count = rules.episodes if episodes is None else episodes
    drawn = rules.explore if explore is None else explore
    evaluation = evaluate_checkpoint(folder, range(first, first + count), drawn)
    about = {"checkpoint": str(folder), "metric": sweep.search.metric, "seed": first, "explore": drawn}
    return {**about, **describe(evaluation, sweep.search.metric, rules)}


def _table(result: Result) -> str:
    width = max(map(len, result))
    low, high = result["ci95"]
    shown = {**result, "ci95": f"[{low:.4g}, {high:.4g}]"}
    return "\n".join(
        f"{name:<{width}}  {v:.4g}" if isinstance(v, float) else f"{name:<{width}}  {v}" for name, v in shown.items()
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m marl_tune.evaluate", description="Play a trained policy on seeds.")
    parser.add_argument("path", metavar="PATH", help="a run's folder, its best/, or any checkpoint folder")
    parser.add_argument("--episodes", type=int, help="episodes to play (default: as in the sweep's selection)")
    parser.add_argument("--seed", type=int, help="seed of the first episode; the next has the next seed")
    words = "draw actions from the policy, or take the most likely (default: as in the sweep's selection)"
    parser.add_argument("--explore", action=argparse.BooleanOptionalAction, help=words)
    words = "play against this scripted player of the world, on all sides (greedily, unless --explore)"
    parser.add_argument("--against", metavar="NAME", help=words)
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
