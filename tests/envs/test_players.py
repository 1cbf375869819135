"""Scripted players of board games: what they take and refuse to take, how strong they are."""

from itertools import product

import gymnasium as gym
import numpy as np
import pytest

from marl_tune import envs
from marl_tune.envs.agent_group import AgentGroup
from marl_tune.envs.classic.board import ACTION_MASK, GROUP, OBSERVATION
from marl_tune.envs.classic.players import best_moves

CONNECT_FOUR, TICTACTOE = "classic/connect_four", "classic/tictactoe"
FIRST, SECOND = np.array([True, False]), np.array([False, True])


def match(world, first, second, games, seed=0):
    """Shares of games that the first player wins, that are drawn, and that the second one wins."""
    board = envs.make_world(envs.default_config(world), 200)
    players = [envs.player_class(world, name)(board.groups, [seed, i]) for i, name in enumerate((first, second))]
    seen, ends = board.reset(), np.zeros(3)
    while ends.sum() < games:
        acting = board.acting[GROUP]
        moves = sum(
            player.act(seen, {GROUP: acting & turn})[GROUP]
            for player, turn in zip(players, (FIRST, SECOND), strict=True)
        )
        step = board.step({GROUP: moves})
        done = np.flatnonzero(step.terminated)
        metrics = board.episode_metrics(done)
        assert not metrics["illegal_moves"].any()
        ends += [metrics[name].sum() for name in ("first_player_wins", "draws", "second_player_wins")]
        seen = board.reset(copies=done) if done.size else step.observations
    return ends / ends.sum()


@pytest.mark.parametrize("other", ["random", "one_ply", "perfect"])
def test_perfect_never_loses(other):
    assert match(TICTACTOE, "perfect", other, 1000)[2] == 0
    assert match(TICTACTOE, other, "perfect", 1000)[0] == 0


def test_perfect_beats_whoever_can_be_beaten():
    assert match(TICTACTOE, "perfect", "perfect", 200)[1] == 1, "a draw"
    assert match(TICTACTOE, "perfect", "random", 500)[0] > 0.9
    assert match(TICTACTOE, "random", "perfect", 500)[2] > 0.7
    assert match(TICTACTOE, "perfect", "one_ply", 500)[0] > 0.7


def test_one_ply_beats_random_from_both_sides():
    assert match(CONNECT_FOUR, "one_ply", "random", 300)[0] > 0.93
    assert match(CONNECT_FOUR, "random", "one_ply", 300)[2] > 0.88
    assert match(TICTACTOE, "one_ply", "random", 500)[0] > 0.85
    assert match(TICTACTOE, "random", "one_ply", 500)[2] > 0.62


def chosen(world, name, moves):
    """What the player does after these moves, in 50 copies with one generator: the set of its moves."""
    board = envs.make_world(envs.default_config(world), 50)
    seen = board.reset()
    for move in moves:
        seen = board.step({GROUP: np.full((50, 2), move)}).observations
    player = envs.player_class(world, name)(board.groups, 0)
    actions = player.act(seen, board.acting)[GROUP]
    assert not actions[~board.acting[GROUP]].any()
    return set(actions[board.acting[GROUP]].tolist())


@pytest.mark.parametrize(
    ("world", "moves", "takes"),
    [
        (TICTACTOE, [0, 3, 1, 4], {2}),  # wins, though it could block
        (TICTACTOE, [0, 3, 1], {2}),  # blocks
        (TICTACTOE, [0, 4, 8], {1, 2, 3, 5, 6, 7}),  # neither: anything
        (TICTACTOE, [0, 1, 4], {8}),
        (CONNECT_FOUR, [3, 0, 3, 0, 3, 0], {3}),  # wins, though it could block
        (CONNECT_FOUR, [3, 0, 3, 0, 3], {3}),  # blocks a column
        (CONNECT_FOUR, [3, 3, 4, 4, 5], {2, 6}),  # both ends of a row: one of them
        (CONNECT_FOUR, [0, 1, 1, 2, 2, 3, 2, 3, 3, 6], {3}),  # a diagonal of its own
        (CONNECT_FOUR, [3, 3, 4, 4, 6], {5}),  # a gap
        (CONNECT_FOUR, [], set(range(7))),
    ],
)
def test_one_ply_takes_wins_and_blocks(world, moves, takes):
    assert chosen(world, "one_ply", moves) == takes


@pytest.mark.parametrize("world", [CONNECT_FOUR, TICTACTOE])
def test_random_makes_every_legal_move_and_no_other(world):
    moves = [0, 0, 0, 0, 0, 0] if world == CONNECT_FOUR else [0, 1, 2]
    legal = set(range(1, 7)) if world == CONNECT_FOUR else {3, 4, 5, 6, 7, 8}
    assert chosen(world, "random", moves) == legal


def test_the_table_of_best_moves_knows_the_game():
    table = best_moves()
    assert table[0].all(), "from an empty board every move draws"
    assert table.any(axis=1).sum() == 4520, "positions that can come up and are not over"
    corner = table[2 * 3**0]  # the other has a corner: only the middle does not lose
    assert np.flatnonzero(corner).tolist() == [4]


def test_players_play_pettingzoos_worlds_too():
    for world, name in product((CONNECT_FOUR, TICTACTOE), ("random", "one_ply")):
        original = f"{world}_v3"
        board = envs.make_world(envs.default_config("pettingzoo", id=original), 2)
        player = envs.player_class(original, name)(board.groups, 0)
        seen = board.reset()
        for _ in range(5):
            step = board.step(player.act(seen, board.acting))
            seen = board.reset(copies=np.arange(2)) if step.terminated.any() else step.observations
    assert envs.PLAYERS.keys() == {CONNECT_FOUR, TICTACTOE, f"{CONNECT_FOUR}_v3", f"{TICTACTOE}_v3"}


def test_the_same_seed_makes_the_same_choices_and_so_does_a_state():
    board = envs.make_world(envs.default_config(TICTACTOE), 20)
    seen = board.reset()
    one, same, other = (envs.player_class(TICTACTOE, "random")(board.groups, seed) for seed in (3, 3, 4))
    first = one.act(seen, board.acting)[GROUP]
    assert np.array_equal(first, same.act(seen, board.acting)[GROUP])
    assert not np.array_equal(first, other.act(seen, board.acting)[GROUP])
    state = one.get_state()
    after = one.act(seen, board.acting)[GROUP]
    other.set_state(state)
    assert np.array_equal(after, other.act(seen, board.acting)[GROUP])


def test_what_is_not_there_is_said():
    with pytest.raises(ValueError, match=r"'classic/chess_v6' has no scripted players: classic/connect_four, .* have"):
        envs.player_class("classic/chess_v6", "random")
    with pytest.raises(ValueError, match=r"of classic/connect_four must be one of random, one_ply, got 'perfect'"):
        envs.player_class(CONNECT_FOUR, "perfect")
    blind = AgentGroup("ants", ("ant_0",), gym.spaces.Box(0, 1, (3,)), gym.spaces.Discrete(2))
    with pytest.raises(ValueError, match=f"needs {OBSERVATION} and {ACTION_MASK}, ants has Box"):
        envs.player_class(TICTACTOE, "random")((blind,), 0)
