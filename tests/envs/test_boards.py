"""Connect four and tic-tac-toe: equal to PettingZoo's step by step, illegal moves included; their pictures, metrics."""

import logging
from functools import partial

import numpy as np
import pytest

from marl_tune import envs
from marl_tune.__main__ import main
from marl_tune.envs.classic.board import ACTION_MASK, GROUP, OBSERVATION, board_lines
from marl_tune.envs.classic.board_render import MARKS, PIECES, WON_RING
from marl_tune.envs.workers.world import WorkerWorld

BOARDS = ("classic/connect_four", "classic/tictactoe")
COPIES = 16
METRICS = ("first_player_wins", "second_player_wins", "draws", "illegal_moves")
WILD = 0.1  # share of the moves that are illegal, where any is
# PettingZoo's board is full after these moves, and nobody has won.
DRAWS = {
    "classic/connect_four": [
        *(0, 1, 0, 1, 1, 0, 1, 0, 0, 1, 0, 1, 2, 3, 2, 3, 3, 2, 3, 2, 2),
        *(3, 2, 3, 4, 5, 4, 5, 5, 4, 5, 4, 4, 5, 4, 5, 6, 6, 6, 6, 6, 6),
    ],
    "classic/tictactoe": [0, 1, 2, 4, 3, 5, 7, 6, 8],
}
WINS = {"classic/connect_four": [3, 0, 3, 0, 3, 0, 3], "classic/tictactoe": [0, 3, 1, 4, 2]}  # the first player's


def board_world(name, copies=1):
    return envs.make_world(envs.default_config(name), copies)


def pettingzoo_world(name, copies=1):
    return envs.make_world(envs.default_config("pettingzoo", id=f"{name}_v3"), copies)


def assert_same(ours, theirs):
    """Equal bit by bit: types, shapes, the order of keys, the sign of a zero."""
    if isinstance(theirs, dict):
        assert list(ours) == list(theirs)
        for key in theirs:
            assert_same(ours[key], theirs[key])
        return
    assert (ours.dtype, ours.shape, ours.tobytes()) == (theirs.dtype, theirs.shape, theirs.tobytes())


def random_moves(observations, rng, wild=WILD):
    mask = observations[GROUP][ACTION_MASK]
    legal, illegal = (np.where(mask == wanted, rng.random(mask.shape), -1.0).argmax(axis=-1) for wanted in (1, 0))
    return np.where(rng.random(legal.shape) < wild, illegal, legal)


def compare(name, games, seed):
    """Plays that many random games in both worlds; what ended them: name of the metric -> how often."""
    rng, worlds = np.random.default_rng(seed), (board_world(name, COPIES), pettingzoo_world(name, COPIES))
    seen, ends = [world.reset(list(range(COPIES))) for world in worlds], dict.fromkeys(METRICS, 0.0)
    assert worlds[0].groups == worlds[1].groups
    while sum(ends.values()) < games:
        assert_same(*seen)
        assert_same(*(world.acting for world in worlds))
        moves = random_moves(seen[0], rng)
        ours, theirs = (world.step({GROUP: moves}) for world in worlds)
        for part in vars(theirs):
            assert_same(getattr(ours, part), getattr(theirs, part))
        assert_same(*(world.acting for world in worlds))
        done = np.flatnonzero(ours.terminated)
        seen = [ours.observations, theirs.observations]
        if done.size:
            for metric, values in worlds[0].episode_metrics(done).items():
                ends[metric] += values.sum()
            seen = [world.reset(copies=done) for world in worlds]
    return ends


@pytest.fixture(autouse=True)
def _no_warnings_of_illegal_moves():
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("name", BOARDS)
def test_games_are_pettingzoos_bit_by_bit(name):
    ends = compare(name, 60, seed=1)
    assert ends["first_player_wins"] > 5
    assert ends["second_player_wins"] > 5
    assert ends["illegal_moves"] > 2


@pytest.mark.slow
@pytest.mark.parametrize(("name", "games"), [("classic/connect_four", 3000), ("classic/tictactoe", 8000)])
def test_thousands_of_games_are_pettingzoos_bit_by_bit(name, games):
    ends = compare(name, games, seed=2)
    if name == "classic/connect_four":  # two in a thousand random games are drawn, fewer with illegal moves among them
        del ends["draws"]
    assert min(ends.values()) > 0, "every end has come up"


@pytest.mark.parametrize("name", BOARDS)
def test_a_full_board_is_a_draw(name):
    worlds = board_world(name), pettingzoo_world(name)
    for world in worlds:
        world.reset()
    for move in DRAWS[name]:
        ours, theirs = (world.step({GROUP: np.full((1, 2), move)}) for world in worlds)
        assert_same(vars(ours), vars(theirs))
    assert ours.terminated.all()
    assert not ours.rewards[GROUP].any()
    metrics = worlds[0].episode_metrics(np.array([0]))
    assert [metrics[name].item() for name in METRICS] == [0, 0, 1, 0]


def test_before_the_first_reset_nobody_acts():
    for name in BOARDS:
        ours, theirs = board_world(name, 2), pettingzoo_world(name, 2)
        assert_same(ours.acting, theirs.acting)
        assert_same(ours.reset([3], np.array([1])), theirs.reset([3], np.array([1])))
        assert_same(ours.acting, theirs.acting)


def test_all_lines_of_a_board():
    assert len(board_lines(6, 7, 4)) == 69
    assert len(board_lines(3, 3, 3)) == 8


@pytest.mark.parametrize("name", BOARDS)
def test_what_others_are_told_to_do_is_ignored_and_nonsense_is_not(name):
    world = board_world(name)
    world.reset()
    world.step({GROUP: np.array([[1, 99]])})
    last = world.groups[0].action_space.n - 1
    with pytest.raises(ValueError, match=rf"actions of player must be in 0\.\.{last}, got 99 to 99"):
        world.step({GROUP: np.array([[1, 99]])})
    with pytest.raises(ValueError, match=r"actions of player must have the shape \(1, 2\)"):
        world.step({GROUP: np.zeros(2, np.int64)})


@pytest.mark.parametrize("name", BOARDS)
def test_workers_play_the_same_games(name):
    def play(workers):
        make = partial(envs.env_class(name), envs.default_config(name))
        world = WorkerWorld(make, 4, workers) if workers else make(4)
        rng, seen = np.random.default_rng(0), world.reset([0, 1, 2, 3])
        with world:
            for _ in range(25):
                step = world.step({GROUP: random_moves(seen, rng)})
                yield step, world.acting
                done = np.flatnonzero(step.terminated)
                seen = world.reset(copies=done) if done.size else step.observations

    for (ours, acting), (theirs, theirs_acting) in zip(play(2), play(0), strict=True):
        assert_same(ours.observations, theirs.observations)
        assert_same(acting, theirs_acting)


@pytest.mark.parametrize(("name", "colours"), [("classic/connect_four", PIECES), ("classic/tictactoe", MARKS)])
def test_a_picture_shows_the_pieces_and_who_has_won(name, colours):
    def shows(picture, colour):
        return int((picture == colour).all(axis=-1).sum())

    world = board_world(name)
    world.reset()
    empty = world.render()
    assert not any(shows(empty, colour) for colour in colours)
    pictures = []
    for move in WINS[name]:
        world.step({GROUP: np.full((1, 2), move)})
        pictures.append(world.render())
    assert shows(pictures[0], colours[0]) > 500
    assert not shows(pictures[0][:-30], colours[1])
    assert shows(pictures[1], colours[1]) > 500
    assert world.episode_metrics(np.array([0]))["first_player_wins"].item() == 1
    if colours is PIECES:
        assert shows(pictures[-1], WON_RING) > 4 * shows(pictures[-2], WON_RING)


def test_they_are_options_of_the_command(capsys, tmp_path):
    words = ["env=classic/connect_four", "search=none", "dry_run=true", f"results_dir={tmp_path}"]
    assert main(words) == 0
    assert "classic/connect_four" in capsys.readouterr().out
    assert main([*words, "env.rows=5"]) == 2


def test_the_observation_is_the_movers():
    world = board_world("classic/tictactoe")
    world.reset()
    seen = world.step({GROUP: np.array([[4, 0]])}).observations[GROUP]
    assert seen[OBSERVATION][0, 1, 1, 1].tolist() == [0, 1], "the other's cross in the middle"
    assert seen[ACTION_MASK][0, 1].tolist() == [1, 1, 1, 1, 0, 1, 1, 1, 1]
    assert not seen[OBSERVATION][0, 0].any()
    assert not seen[ACTION_MASK][0, 0].any()
