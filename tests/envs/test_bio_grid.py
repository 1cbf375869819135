"""The rules of the bio grid: in situations made by hand, and what agents observe against slow loops."""

import dataclasses
import itertools
import math
import time

import numpy as np
import pytest

from marl_tune import envs
from marl_tune.envs.bio_grid.world import DEPOSIT, MOVES, STAY, BioGrid, BioGridConfig
from marl_tune.envs.testing import check_world, sample_actions

DEFAULTS = {
    "name": "bio_grid",
    "grid_size": [4, 3, 3],
    "n_agents": 30,
    "communication_range": 2.0,
    "capacity": 1.0,
    "nest": [0, 0, 0],
    "n_nodes": 3,
    "agents_per_node": 3,
    "node_amount": 20.0,
    "drain_rate": 1.0,
    "node_scent": 0.5,
    "pheromone_deposit": 0.2,
    "pheromone_decay": 0.95,
    "pheromone_diffusion": 0.0,
    "max_steps": 500,
}


def rules(**changes):
    return BioGridConfig(**(DEFAULTS | changes))


def grid(copies=1, **changes):
    world = BioGrid(rules(**changes), copies)
    world.reset(list(range(copies)))
    return world


def place(world, agents=None, nodes=None, loads=None, pheromone=None, copy=0):
    """Puts agents and nodes, lists of cells, where a test wants them; returns the observations."""
    number = lambda cell: np.ravel_multi_index(cell, world.sides)  # noqa: E731
    if agents is not None:
        world.cell[copy] = [number(cell) for cell in agents]
    if nodes is not None:
        world.nodes[copy] = [number(cell) + world.first_cell[copy, 0] for cell in nodes]
    if loads is not None:
        world.load[copy] = loads
    if pheromone is not None:
        field_of(world, copy)[...] = pheromone
    return world.observe()["agents"][copy]


def field_of(world, copy=0):
    """The pheromone of a copy, (width, height, depth), to read and write."""
    return world.pheromone.reshape(world.num_envs, *world.sides)[copy]


def cells_of(world, observed):
    """The agents' cells, read from what they observe."""
    return [tuple(cell) for cell in np.rint(observed[:, :3] * (np.array(world.sides) - 1)).astype(int).tolist()]


def stay(world):
    return world.step({"agents": np.full((world.num_envs, world.config.n_agents), STAY)})


# --- moves, pheromone ---


def test_every_move_and_the_walls():
    world = grid(grid_size=[3, 4, 5], n_agents=6, n_nodes=1)
    for cell in itertools.product(range(3), range(4), range(5)):
        place(world, [cell] * 6, [(1, 1, 1)])
        step = world.step({"agents": np.arange(6)[None]})
        for seen, move in zip(cells_of(world, step.observations["agents"][0]), MOVES, strict=True):
            goal = tuple(c + m for c, m in zip(cell, move, strict=True))
            inside = all(0 <= c < side for c, side in zip(goal, (3, 4, 5), strict=True))
            assert seen == (goal if inside else cell)


def test_pheromone_decays_first_and_deposits_count_in_full():
    world = grid(n_agents=4, n_nodes=1, pheromone_decay=0.5, pheromone_deposit=0.2, node_scent=0.3)
    place(world, [(3, 0, 0), (3, 0, 0), (2, 0, 0), (1, 0, 0)], [(0, 2, 2)])
    seen = world.step({"agents": np.array([[DEPOSIT, DEPOSIT, DEPOSIT, STAY]])}).observations["agents"][0]
    assert seen[:, 4].tolist() == pytest.approx([0.4, 0.4, 0.2, 0.0])
    assert field_of(world)[0, 2, 2] == pytest.approx(0.3)
    assert field_of(world).sum() == pytest.approx(0.9)
    for _ in range(4):
        stay(world)
    assert field_of(world)[3, 0, 0] == pytest.approx(0.4 / 16)
    world.step({"agents": np.full((1, 4), DEPOSIT)})
    for _ in range(9):
        seen = world.step({"agents": np.full((1, 4), DEPOSIT)}).observations["agents"][0]
    assert seen[0, 4] == pytest.approx(0.2 * 2 / 0.5, abs=1e-2)  # no more than 1 is kept, and this is less
    assert field_of(world).max() <= 1


def test_only_a_living_node_keeps_its_cell_at_one():
    world = grid(n_agents=3, n_nodes=1, node_amount=0.5)
    place(world, [(0, 0, 0)] * 3, [(3, 2, 2)])
    world.amount[0] = 0.5
    levels = []
    for _ in range(4):
        stay(world)
        levels.append(field_of(world)[3, 2, 2])
    assert levels == pytest.approx([0.5, 0.975, 1.0, 1.0])
    place(world, [(3, 2, 2)] * 3)
    assert stay(world).observations["agents"][0, 0, 4] == pytest.approx(0.95)  # emptied, and moved, in this step
    assert world.amount[0, 0] == 0.5
    assert np.count_nonzero(field_of(world)) == 2


@pytest.mark.parametrize("share", [0.02, 0.1, 1 / 6])
def test_diffusion_keeps_the_mass_and_goes_to_the_neighbours(share):
    world = grid(2, grid_size=[4, 3, 2], n_agents=3, node_scent=0.0, pheromone_diffusion=share, pheromone_decay=0.9)
    place(world, pheromone=np.zeros((4, 3, 2)))
    field_of(world)[1, 1, 0] = 1.0
    before = np.random.default_rng(0).random((4, 3, 2)).astype(np.float32)
    place(world, pheromone=before, copy=1)
    stay(world)
    peak = field_of(world) / 0.9
    assert peak[1, 1, 0] == pytest.approx(1 - 5 * share, abs=1e-6)  # z = 0 is a wall: five neighbours
    for cell in ((0, 1, 0), (2, 1, 0), (1, 0, 0), (1, 2, 0), (1, 1, 1)):
        assert peak[cell] == pytest.approx(share, abs=1e-6)
    assert peak.sum() == pytest.approx(1, abs=1e-6)
    expected = before.copy()
    for cell in np.ndindex(4, 3, 2):
        for move in MOVES:
            other = tuple(np.add(cell, move))
            if all(0 <= c < side for c, side in zip(other, (4, 3, 2), strict=True)):
                expected[cell] += share * (before[other] - before[cell])
    assert field_of(world, 1) / 0.9 == pytest.approx(expected, abs=1e-6)
    for _ in range(20):
        stay(world)
        assert field_of(world, 1).min() >= 0
    assert field_of(world, 1).sum() == pytest.approx(before.sum() * 0.9**21, rel=1e-5)


# --- draining and delivering ---


@pytest.mark.parametrize("needed", [1, 2, 3, 5])
def test_a_node_gives_to_enough_agents_only(needed):
    for present in range(1, 7):
        world = grid(n_agents=6, n_nodes=2, agents_per_node=needed, capacity=10.0)
        place(world, [(2, 1, 1)] * present + [(2, 2, 1)] * (6 - present), [(2, 1, 1), (3, 0, 0)])
        rewards = stay(world).rewards["agents"][0]
        share = 1.0 / present if present >= needed else 0.0
        assert world.load[0] == pytest.approx([share] * present + [0] * (6 - present))
        assert rewards == pytest.approx(0.1 * world.load[0])
        assert world.amount[0].tolist() == pytest.approx([20.0 - present * share, 20.0])
        metrics = world.episode_metrics(np.array([0]))
        assert metrics["mean_team_size_at_drain"] == (present if present >= needed else 0)


def test_agents_drain_where_they_arrive():
    world = grid(n_agents=3, n_nodes=1)
    place(world, [(1, 1, 1), (2, 0, 1), (3, 1, 1)], [(2, 1, 1)])
    step = world.step({"agents": np.array([[1, 3, 0]])})
    assert step.observations["agents"][0, :, 3].tolist() == pytest.approx([1 / 3] * 3)
    place(world, loads=[0, 0, 0])
    step = world.step({"agents": np.array([[STAY, DEPOSIT, 5]])})  # one leaves, and they are two
    assert not step.rewards["agents"].any()


def test_the_loaded_count_for_the_team_but_take_no_more_than_they_can():
    world = grid(n_agents=4, n_nodes=1, capacity=1.0, drain_rate=3.0)
    place(world, [(2, 1, 1)] * 3 + [(0, 0, 1)], [(2, 1, 1)], loads=[1.0, 0.75, 0.0, 0.0])
    stay(world)  # two have room: 1.5 for each, of which they can take 0.25 and 1
    assert world.load[0].tolist() == pytest.approx([1, 1, 1, 0])
    assert world.amount[0, 0] == pytest.approx(20 - 1.25)
    assert not stay(world).rewards["agents"].any()
    assert world.drains[0] == 1  # a step in which nobody has room is no drain


def test_an_empty_node_moves_to_a_free_cell():
    found = set()
    for seed in range(200):
        world = BioGrid(rules(grid_size=[2, 3, 1], n_agents=3, n_nodes=2, nest=[1, 2, 0]))
        world.reset([seed])
        place(world, [(0, 1, 0)] * 3, [(0, 1, 0), (1, 1, 0)])
        world.amount[0] = (0.5, 20.0)
        rewards = stay(world).rewards["agents"][0]
        assert rewards == pytest.approx([0.1 * 0.5 / 3] * 3)  # what was left
        assert world.amount[0].tolist() == [20.0, 20.0]
        assert world.episode_metrics(np.array([0]))["nodes_drained"] == 1
        found.add(int(world.nodes[0, 0]))
    assert found == {0, 2, 3}  # of 6 cells not its own (1), the other node's (4), the nest (5)


def test_equal_parts_empty_a_node_and_fill_an_agent():
    world = grid(n_agents=7, n_nodes=1, node_amount=7.0)
    place(world, [(2, 1, 1)] * 7, [(2, 1, 1)])
    for _ in range(7):
        stay(world)
    assert world.episode_metrics(np.array([0]))["nodes_drained"] == 1
    assert world.load[0] == pytest.approx([1.0] * 7)
    place(world, [(2, 1, 1)] * 7, [(2, 1, 1)])
    assert not stay(world).rewards["agents"].any()  # sevenths add up to less than 1, and yet nobody has room


def test_loads_are_delivered_on_arrival_at_the_nest():
    world = grid(2, n_agents=3, nest=[1, 1, 1])
    for copy in range(2):
        place(world, [(0, 1, 1), (1, 1, 1), (2, 2, 2)], loads=[1.0, 0.25, 0.5], copy=copy)
        place(world, nodes=[(3, 0, 0), (3, 1, 0), (3, 2, 0)], copy=copy)
    step = world.step({"agents": np.array([[1, STAY, STAY], [STAY, 1, 0]])})
    assert step.rewards["agents"].tolist() == [[1.0, 0.25, 0.0], [0.0, 0.0, 0.0]]
    assert step.observations["agents"][..., 3].tolist() == [[0, 0, 0.5], [1, 0.25, 0.5]]
    assert world.episode_metrics(np.arange(2))["resources_delivered"].tolist() == [1.25, 0]
    assert not step.terminated.any()


def test_nothing_is_lost_or_made_in_play():
    config = rules(n_agents=20, grid_size=[3, 2, 2], node_amount=3.0, capacity=0.7, agents_per_node=2, max_steps=300)
    world, rng = BioGrid(config, 5), np.random.default_rng(0)
    observations, returns = world.reset(list(range(5))), np.zeros(5)
    for index in range(300):
        step = world.step(sample_actions(world, observations, rng))
        returns += step.rewards["agents"].sum(axis=1)
        assert step.truncated.all() == (index == 299)
        assert (world.load <= 0.7 + 1e-12).all()
    metrics = world.episode_metrics(np.arange(5))
    given = 3.0 * (metrics["nodes_drained"] + 3) - world.amount.sum(axis=1)
    assert given == pytest.approx(metrics["resources_delivered"] + world.load.sum(axis=1))
    assert returns == pytest.approx(0.1 * given + metrics["resources_delivered"], rel=1e-4)
    assert metrics["nodes_drained"].min() > 3
    assert (metrics["mean_team_size_at_drain"] >= 2).all()


# --- observations ---


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"grid_size": [5, 1, 2], "n_agents": 7, "communication_range": 1.0},
        {"grid_size": [2, 6, 4], "n_agents": 12, "communication_range": 2.9, "pheromone_diffusion": 0.1},
        {"grid_size": [3, 3, 3], "n_agents": 3, "communication_range": 0.5, "capacity": 2.5},
        {"grid_size": [4, 4, 4], "n_agents": 9, "communication_range": 1e30, "agents_per_node": 1},
    ],
)
def test_observations_equal_slow_loops(changes):
    world = grid(3, **changes)
    rng, (copies, agents) = np.random.default_rng(1), (3, world.config.n_agents)
    for _ in range(20):
        seen = world.step({"agents": rng.integers(8, size=(copies, agents))}).observations["agents"]
        for copy, agent in np.ndindex(copies, agents):
            expected = slow_observation(world, copy, agent)
            assert seen[copy, agent] == pytest.approx(expected, abs=1e-6)


def slow_observation(world, copy, agent):
    config, levels = world.config, field_of(world, copy)
    cells = [np.unravel_index(cell, world.sides) for cell in world.cell[copy]]
    own = cells[agent]
    gradient = []
    for axis, side in enumerate(world.sides):
        low, high = list(own), list(own)
        low[axis], high[axis] = max(own[axis] - 1, 0), min(own[axis] + 1, side - 1)
        cells_apart = high[axis] - low[axis]
        gradient.append((levels[tuple(high)] - levels[tuple(low)]) / cells_apart if cells_apart else 0.0)
    offsets = []
    for other, cell in enumerate(cells):
        offset = [int(c) - int(o) for c, o in zip(cell, own, strict=True)]
        if other != agent and math.hypot(*offset) <= config.communication_range:
            offsets.append(offset)
    mean = np.mean(offsets, axis=0) / config.communication_range if offsets else np.zeros(3)
    position = [c / max(side - 1, 1) for c, side in zip(own, world.sides, strict=True)]
    load = world.load[copy, agent] / config.capacity
    return [*position, load, levels[own], *gradient, len(offsets) / (config.n_agents - 1), *mean]


def test_gradient_and_neighbours_by_hand():
    world = grid(n_agents=4, grid_size=[5, 3, 3])
    levels = np.zeros((5, 3, 3))
    levels[0:3, 1, 1] = (0.2, 0.1, 0.8)
    levels[1, 0, 1], levels[1, 1, 2] = 0.5, 0.3
    seen = place(world, [(1, 1, 1), (0, 1, 1), (3, 1, 1), (4, 2, 2)], pheromone=levels)
    assert seen[0, 4:8].tolist() == pytest.approx([0.1, 0.3, -0.25, 0.15])
    assert seen[1, 4:8].tolist() == pytest.approx([0.2, -0.1, 0.0, 0.0])  # at a wall: 0.1 - 0.2
    # Agent 0 has agents 1 and 2 in range, at -1 and +2 cells along x; agent 3 has agent 2 alone, at distance sqrt(3).
    assert seen[0, 8:].tolist() == pytest.approx([2 / 3, 0.25, 0, 0])
    assert seen[3, 8:].tolist() == pytest.approx([1 / 3, -0.5, -0.5, -0.5])
    alone = place(world, [(0, 0, 0), (4, 2, 2), (4, 2, 2), (4, 2, 2)])
    assert not alone[0, 8:].any()
    assert alone[1, 8:].tolist() == pytest.approx([2 / 3, 0, 0, 0])


def test_one_agent_in_one_row_of_cells():
    world = grid(n_agents=1, agents_per_node=1, grid_size=[1, 4, 1], n_nodes=1)
    seen = place(world, [(0, 3, 0)], pheromone=np.array([0, 0, 0.1, 0.5]).reshape(1, 4, 1))
    assert seen[0].tolist() == pytest.approx([0, 1, 0, 0, 0.5, 0, 0.4, 0, 0, 0, 0, 0])


# --- start, play, settings ---


def test_start():
    world = BioGrid(rules(nest=[1, 2, 0]), 600)
    seen = world.reset(list(range(600)))["agents"]
    assert seen.shape == (600, 30, 12)
    assert seen.dtype == np.float32
    assert not seen[..., 3:8].any()
    assert np.bincount(world.cell.ravel(), minlength=36).min() > 400  # 500 a cell, deviation 22
    nodes = world.nodes - world.first_cell
    assert all(len(set(row)) == 3 for row in nodes.tolist())
    counts = np.bincount(nodes.ravel(), minlength=36)
    assert counts[world.nest] == 0
    assert np.delete(counts, world.nest).min() > 20  # 51 a cell, deviation 7
    assert world.nest == np.ravel_multi_index((1, 2, 0), (4, 3, 3))


@pytest.mark.parametrize(
    "changes",
    [
        {"pheromone_diffusion": 1 / 6, "n_agents": 9, "grid_size": [3, 1, 2], "n_nodes": 2},
        {"node_amount": 0.5, "agents_per_node": 1, "capacity": 0.3, "node_scent": 0.0},
    ],
)
def test_other_settings_keep_the_contract(changes):
    check_world(lambda copies: BioGrid(rules(max_steps=25, **changes), copies), steps=75)


def test_same_seed_same_play():
    plays = []
    for _ in range(2):
        world, rng = BioGrid(rules(node_amount=1.0), 4), np.random.default_rng(3)
        observations, track = world.reset([5, 6, 7, 5]), []
        for _ in range(100):
            step = world.step(sample_actions(world, observations, rng))
            track.append((step.observations["agents"], step.rewards["agents"]))
        plays.append(track)
    for (seen, rewards), (again, rewards_again) in zip(*plays, strict=True):
        assert np.array_equal(seen, again)
        assert np.array_equal(rewards, rewards_again)
    assert not np.array_equal(plays[0][0][0][0], plays[0][0][0][1])


@pytest.mark.parametrize(
    ("key", "value", "rule"),
    [
        ("grid_size", [4, 3], "three numbers"),
        ("grid_size", [4, 3, 0], "at least 1"),
        ("nest", [0, 0], "a cell of env.grid_size"),
        ("nest", [4, 0, 0], "a cell of env.grid_size"),
        ("nest", [0, -1, 0], "a cell of env.grid_size"),
        ("n_agents", 0, "at least 1"),
        ("n_nodes", 0, "at least 1"),
        ("n_nodes", 35, "2 less than the 36 cells"),
        ("agents_per_node", 0, "at least 1"),
        ("agents_per_node", 31, "<= env.n_agents=30"),
        ("communication_range", 0.0, "above 0"),
        ("communication_range", float("nan"), "above 0"),
        ("capacity", float("inf"), "finite"),
        ("node_amount", -1.0, "above 0"),
        ("drain_rate", 0.0, "above 0"),
        ("node_scent", 1.5, r"in \[0, 1\]"),
        ("pheromone_deposit", -0.1, r"in \[0, 1\]"),
        ("pheromone_decay", 1.1, r"in \[0, 1\]"),
        ("pheromone_diffusion", 0.2, r"in \[0, 1/6\]"),
        ("max_steps", 0, "at least 1"),
    ],
)
def test_bad_settings_are_refused_by_name(key, value, rule):
    with pytest.raises(ValueError, match=rf"env\.{key} must be .*{rule}.*got"):
        rules(**{key: value})


def test_only_the_number_of_agents_is_structural_and_the_values_are_the_tested_ones():
    structural = {field.name for field in dataclasses.fields(BioGridConfig) if field.metadata.get("structural")}
    assert structural == {"n_agents", "curriculum"}
    assert envs.default_config("bio_grid") == rules()


def test_wrong_arguments_are_refused():
    world = grid(2, n_agents=3)
    for actions in ([[0, 8, 0], [0, 0, 0]], [[0, -1, 0], [0, 0, 0]], [[0, 0, 0]]):
        with pytest.raises(ValueError, match="must have the shape"):
            world.step({"agents": np.array(actions)})
    with pytest.raises(ValueError, match="state of another world"):
        BioGrid(rules(n_agents=4), 2).set_state(world.get_state())


def test_a_batched_step_is_fast():
    world = grid(16)
    actions = {"agents": np.random.default_rng(0).integers(8, size=(16, 30))}
    best = np.inf
    for _ in range(30):
        start = time.perf_counter()
        for _ in range(10):
            world.step(actions)
        best = min(best, (time.perf_counter() - start) / 10)
    assert best < 1e-3  # a loop over the 480 agents takes more
