"""The rules of the ant colony, against a slow reference that plays ant by ant, and in situations made by hand."""

import dataclasses
import time

import numpy as np
import pytest

from marl_tune.envs.ant_colony import AntColony, AntColonyConfig
from marl_tune.envs.ant_colony.forager import Forager

DEFAULTS = {
    "name": "ant_colony",
    "grid_size": [20, 20],
    "n_agents": 10,
    "n_food_sources": 3,
    "food_per_source": 1,
    "sense_radius": None,
    "pheromone_strength": 0.1,
    "pheromone_decay": 0.95,
    "max_steps": 1000,
}
MOVES = ((-1, 0), (1, 0), (0, -1), (0, 1))


def rules(**changes):
    return AntColonyConfig(**(DEFAULTS | changes))


class Reference:
    """One colony, in plain loops; `ants` and `food` are lists of cells."""

    def __init__(self, config, ants, food):
        self.config, (self.width, self.height) = config, config.grid_size
        self.nest = (self.width // 2, self.height // 2)
        self.ants, self.carrying = list(ants), [False] * len(ants)
        self.food = dict.fromkeys(food, config.food_per_source)
        self.pheromone = {}
        self.delivered = self.steps = 0

    def on_grid(self, cell):
        return 0 <= cell[0] < self.width and 0 <= cell[1] < self.height

    def observe(self, ant):
        x, y = self.ants[ant]
        row = [x / (self.width - 1), y / (self.height - 1), float(self.carrying[ant])]
        row += [self.pheromone.get((x + dx, y + dy), 0.0) for dx, dy in MOVES]
        targets = [self.nest] if self.carrying[ant] else [cell for cell, pieces in self.food.items() if pieces]
        lengths = {(tx - x, ty - y): np.hypot(tx - x, ty - y) for tx, ty in targets}
        if self.config.sense_radius is not None and not self.carrying[ant]:
            lengths = {vector: length for vector, length in lengths.items() if length <= self.config.sense_radius}
        nearest = [v for v, length in lengths.items() if length == min(lengths.values())]
        return row, [(v[0] / (lengths[v] or 1), v[1] / (lengths[v] or 1)) for v in nearest] or [(0, 0)]

    def step(self, actions, winners):
        """`winners`: cell -> ants that get a piece there if there are too few for all."""
        for ant, cell in enumerate(self.ants):
            deposit = self.config.pheromone_strength * (2 if self.carrying[ant] else 1)
            self.pheromone[cell] = self.pheromone.get(cell, 0.0) + deposit
        self.pheromone = {c: min(max(p * self.config.pheromone_decay, 0), 1) for c, p in self.pheromone.items()}
        rewards = []
        claims = {}
        for ant, action in enumerate(actions):
            if action == 4 and not self.carrying[ant] and self.food.get(self.ants[ant], 0):
                claims.setdefault(self.ants[ant], []).append(ant)
        takers = []
        for cell, claimants in claims.items():
            takers += claimants if len(claimants) <= self.food[cell] else winners(cell, claimants, self.food[cell])
        for ant, action in enumerate(actions):
            cell, reward = self.ants[ant], -0.01
            if action < 4:
                target = (cell[0] + MOVES[action][0], cell[1] + MOVES[action][1])
                self.ants[ant] = target if self.on_grid(target) else cell
            elif ant in takers:
                self.carrying[ant], reward = True, 1.0
                self.food[cell] -= 1
            elif self.carrying[ant] and cell == self.nest:
                self.carrying[ant], reward = False, 10.0
                self.delivered += 1
            rewards.append(reward)
        self.steps += 1
        terminated = self.delivered == self.config.n_food_sources * self.config.food_per_source
        return rewards, terminated, self.steps >= self.config.max_steps and not terminated


def cells_of(world, observations, copy=0):
    """The ants' cells, read from their observations."""
    xy = observations["ants"][copy, :, :2] * np.array((world.width - 1, world.height - 1))
    return [tuple(cell) for cell in np.rint(xy).astype(int).tolist()]


def food_of(world, copy=0):
    grid = world.pieces.reshape(world.num_envs, world.width + 2, world.height + 2)[copy, 1:-1, 1:-1]
    return {tuple(cell): int(grid[tuple(cell)]) for cell in np.argwhere(grid).tolist()}


def place(world, ants, food, copy=0):
    """Puts ants and sources, lists of cells, where a test wants them; returns the observations."""
    number = lambda cell: (cell[0] + 1) * (world.height + 2) + cell[1] + 1  # noqa: E731
    world.cell[copy] = [number(cell) for cell in ants]
    pieces = world.pieces.reshape(world.num_envs, -1)
    pieces[copy] = 0
    for index, cell in enumerate(food):
        pieces[copy, number(cell)] = world.config.food_per_source
        world.sources[copy, index] = number(cell) + world.first_cell[copy, 0]
        world.food_x[copy, 0, index], world.food_y[copy, 0, index] = cell
    return world.observe()


@pytest.mark.parametrize(
    "changes",
    [
        {"grid_size": [7, 5], "n_food_sources": 4},
        {"grid_size": [5, 9], "food_per_source": 3, "sense_radius": 2.0, "pheromone_strength": 0.4},
        {"grid_size": [4, 4], "n_agents": 12, "food_per_source": 2, "pheromone_decay": 1.0},
        {"grid_size": [2, 3], "n_agents": 3, "n_food_sources": 2, "sense_radius": 1.0, "pheromone_decay": 0.0},
    ],
)
def test_equals_the_reference_step_by_step(changes):
    config = rules(max_steps=150, **changes)
    copies, rng = 6, np.random.default_rng(0)
    world = AntColony(config, copies)
    observations = world.reset(list(range(copies)))
    colonies = [Reference(config, cells_of(world, observations, i), food_of(world, i)) for i in range(copies)]
    alive, seen = np.ones(copies, bool), {"conflict": 0, "delivery": 0, "terminated": 0, "truncated": 0}
    for _ in range(config.max_steps):
        # Random walks with a bias: an ant on a target uses it half the time, or hardly anything would be carried home.
        actions = rng.integers(5, size=(copies, config.n_agents))
        on_target = ~observations["ants"][..., 7:9].any(axis=-1)
        actions[on_target & (rng.random(actions.shape) < 0.5)] = 4
        step = world.step({"ants": actions})
        for i in np.flatnonzero(alive):

            def winners(cell, claimants, pieces, i=i, rewards=step.rewards["ants"]):
                seen["conflict"] += 1
                chosen = [ant for ant in claimants if rewards[i, ant] == 1.0]
                assert len(chosen) == pieces
                return chosen

            rewards, terminated, truncated = colonies[i].step(actions[i], winners)
            assert step.rewards["ants"][i] == pytest.approx(rewards)
            assert (step.terminated[i], step.truncated[i]) == (terminated, truncated)
            seen["delivery"] += rewards.count(10.0)
            seen["terminated"] += terminated
            seen["truncated"] += truncated
            for ant in range(config.n_agents):
                row, vectors = colonies[i].observe(ant)
                observed = step.observations["ants"][i, ant]
                assert observed[:7] == pytest.approx(row, abs=1e-5)
                assert any(observed[7:] == pytest.approx(vector, abs=1e-6) for vector in vectors)
            metrics = world.episode_metrics(np.array([i]))
            total = config.n_food_sources * config.food_per_source
            covered = sum(level > 0.1 for level in colonies[i].pheromone.values())
            assert metrics["food_collected"] == colonies[i].delivered
            assert metrics["food_collected_fraction"] == pytest.approx(colonies[i].delivered / total)
            assert metrics["pheromone_coverage"] == pytest.approx(covered / (world.width * world.height))
            assert metrics["ant_efficiency"] == pytest.approx(1000 * colonies[i].delivered / colonies[i].steps)
        alive &= ~(step.terminated | step.truncated)
        observations = step.observations
    assert not alive.any()
    assert seen["delivery"] > 5
    assert seen["terminated"] + seen["truncated"] == copies
    assert seen["conflict"] > 0 or config.n_agents < 12


def test_start():
    config = rules(grid_size=[9, 30], n_agents=8, n_food_sources=5)
    world = AntColony(config, 400)
    observations = world.reset(list(range(400)))
    assert observations["ants"].shape == (400, 8, 9)
    assert observations["ants"].dtype == np.float32
    ants = np.array([cells_of(world, observations, i) for i in range(400)])
    offsets = ants - (4, 15)
    assert set(map(tuple, offsets.reshape(-1, 2).tolist())) == {(x, y) for x in range(-2, 3) for y in range(-2, 3)}
    assert not observations["ants"][..., 2:7].any()
    counts = np.zeros((9, 30))
    for i in range(400):
        food = food_of(world, i)
        assert len(food) == 5
        assert set(food.values()) == {1}
        for cell in food:
            counts[cell] += 1
    assert counts[4, 15] == 0
    # 2000 sources on 269 cells, 7.4 a cell: chi-square of a uniform draw has mean 268 and deviation 23.
    expected = 2000 / 269
    chi_square = ((counts - expected) ** 2).sum() / expected - expected
    assert chi_square < 268 + 5 * 23


def test_ants_start_on_the_grid_when_it_is_small():
    world = AntColony(rules(grid_size=[2, 3], n_agents=60, n_food_sources=5))
    assert set(cells_of(world, world.reset([0]))) == {(x, y) for x in range(2) for y in range(3)}
    assert set(food_of(world)) == {(x, y) for x in range(2) for y in range(3)} - {(1, 1)}


def test_one_trip_by_hand():
    small = {"grid_size": [5, 5], "n_agents": 1, "n_food_sources": 1}
    world = AntColony(rules(**small, pheromone_strength=0.2, pheromone_decay=0.5))
    world.reset([0])
    row = place(world, [(3, 2)], [(4, 2)])["ants"][0, 0]
    assert row.tolist() == pytest.approx([0.75, 0.5, 0, 0, 0, 0, 0, 1, 0])

    def act(action):
        step = world.step({"ants": np.array([[action]])})
        return step.observations["ants"][0, 0].tolist(), step.rewards["ants"][0, 0], bool(step.terminated[0])

    row, reward, _ = act(1)  # onto the food; leaves 0.2 * 0.5 behind
    assert row == pytest.approx([1, 0.5, 0, 0.1, 0, 0, 0, 0, 0])
    assert reward == np.float32(-0.01)
    row, reward, _ = act(4)  # picks up, and deposits once: it carried nothing before
    assert row == pytest.approx([1, 0.5, 1, 0.05, 0, 0, 0, -1, 0])
    assert reward == 1
    row, _, _ = act(0)  # leaves (0.2 * 0.5 + 0.4) * 0.5 on the food's cell
    assert row == pytest.approx([0.75, 0.5, 1, 0, 0.25, 0, 0, -1, 0])
    row, _, _ = act(4)  # not at home: nothing happens but a double deposit on its own cell
    assert row[2] == 1
    row, _, done = act(0)  # arriving home is not delivering
    assert row == pytest.approx([0.5, 0.5, 1, 0, ((0.025 + 0.4) / 2 + 0.4) / 2, 0, 0, 0, 0])
    assert not done
    row, reward, done = act(4)
    assert row[2] == 0
    assert reward == 10
    assert done


def test_conflicts_are_won_fairly_and_by_one():
    world = AntColony(rules(grid_size=[9, 9], n_agents=4, n_food_sources=1), 1200)
    world.reset(list(range(1200)))
    for copy in range(1200):
        place(world, [(0, 0), (1, 1), (1, 1), (1, 1)], [(1, 1)], copy)
    step = world.step({"ants": np.full((1200, 4), 4)})
    wins = (step.rewards["ants"] == 1).sum(axis=0)
    assert wins[0] == 0
    assert wins.sum() == 1200
    assert np.abs(wins[1:] - 400).max() < 5 * np.sqrt(1200 * 2 / 9)
    assert (step.observations["ants"][..., 2].sum(axis=1) == 1).all()
    assert not step.observations["ants"][step.rewards["ants"] < 1][:, 7:9].any()  # nothing left to see


def test_a_source_serves_as_many_as_it_has_pieces():
    world = AntColony(rules(grid_size=[9, 9], n_agents=5, n_food_sources=2, food_per_source=3))
    world.reset([0])
    place(world, [(1, 1)] * 4 + [(7, 7)], [(1, 1), (7, 7)])
    rewards = world.step({"ants": np.full((1, 5), 4)}).rewards["ants"][0]
    assert (rewards[:4] == 1).sum() == 3
    assert rewards[4] == 1
    assert food_of(world) == {(7, 7): 2}


def test_limited_sight_hides_food_but_not_the_nest():
    world = AntColony(rules(grid_size=[21, 21], n_agents=3, n_food_sources=1, sense_radius=3.0))
    world.reset([0])
    rows = place(world, [(0, 3), (0, 4), (2, 2)], [(0, 0)])["ants"][0]
    assert rows[:, 7:9].tolist() == [[0, -1], [0, 0], pytest.approx([-(0.5**0.5)] * 2)]
    world.carrying[0, 1] = True
    assert np.linalg.norm(world.observe()["ants"][0, 1, 7:9]) == pytest.approx(1)


def test_terminated_wins_over_truncated():
    world = AntColony(rules(n_agents=1, n_food_sources=1, max_steps=1), 2)
    world.reset([0, 1])
    for copy in range(2):
        place(world, [(10, 10)], [(0, 0)], copy)
    world.carrying[0] = True  # with the only piece, on the nest
    step = world.step({"ants": np.array([[4], [4]])})
    assert step.terminated.tolist() == [True, False]
    assert step.truncated.tolist() == [False, True]


def test_tokens_point_at_the_neighbours_whose_pheromone_they_hold():
    world = AntColony(rules(grid_size=[9, 9], n_agents=5))
    world.reset([0])
    tokens = world.groups[0].tokens
    for direction, index in zip(tokens.directions, tokens.indices, strict=True):
        neighbour = (4 + int(direction[0]), 4 + int(direction[1]))
        world.reset([0])
        place(world, [neighbour, (4, 4), (4, 4), (4, 4), (4, 4)], [(0, 0), (0, 1), (0, 2)])
        row = world.step({"ants": np.full((1, 5), 4)}).observations["ants"][0, 1]
        assert [i for i in range(3, 7) if row[i] > 0] == [index]


def test_forager_brings_everything_home():
    config = rules(grid_size=[30, 30], n_agents=20, n_food_sources=5, max_steps=300, pheromone_decay=0.98)
    returns, metrics = forage(dataclasses.replace(config, pheromone_strength=0.2), 50)
    assert metrics["food_collected_fraction"].min() == 1.0
    assert 40.0 < returns.mean() < 55.0  # 55 is the sum of all prizes, without the cost of the steps


def test_forager_searches_with_limited_sight():
    config = rules(grid_size=[40, 40], n_agents=20, food_per_source=20, sense_radius=3.0, max_steps=600)
    _, metrics = forage(config, 16)
    assert metrics["food_collected_fraction"].mean() > 0.95


def forage(config, episodes):
    """Summed returns (episodes,) and metrics of the scripted forager."""
    world = AntColony(config, episodes)
    forager, observations = Forager(world), world.reset(list(range(episodes)))
    returns, alive, metrics = np.zeros(episodes), np.ones(episodes, bool), {}
    while alive.any():
        step = world.step(forager.act(observations))
        returns += alive * step.rewards["ants"].sum(axis=1)
        observations, done = step.observations, alive & (step.terminated | step.truncated)
        for name, values in world.episode_metrics(np.flatnonzero(done)).items():
            metrics.setdefault(name, np.zeros(episodes))[done] = values
        alive &= ~done
    return returns, metrics


@pytest.mark.parametrize(
    ("key", "value", "rule"),
    [
        ("grid_size", [20], "two numbers"),
        ("grid_size", [20, 1], "at least 2"),
        ("n_agents", 0, "at least 1"),
        ("n_food_sources", 0, "at least 1"),
        ("n_food_sources", 400, "less than the 400 cells"),
        ("food_per_source", 0, "at least 1"),
        ("sense_radius", 0.0, "above 0"),
        ("sense_radius", float("nan"), "above 0"),
        ("pheromone_strength", -0.1, "at least 0"),
        ("pheromone_decay", 1.1, r"in \[0, 1\]"),
        ("max_steps", 0, "at least 1"),
    ],
)
def test_bad_settings_are_refused_by_name(key, value, rule):
    with pytest.raises(ValueError, match=rf"env\.{key} must be .*{rule}.*got"):
        rules(**{key: value})


def test_only_the_number_of_agents_is_structural():
    structural = {field.name for field in dataclasses.fields(AntColonyConfig) if field.metadata.get("structural")}
    assert structural == {"n_agents", "curriculum"}


def test_wrong_arguments_are_refused():
    world = AntColony(rules(n_agents=2), 2)
    world.reset([0, 1])
    for actions in ([[0, 5], [0, 0]], [[0, -1], [0, 0]], [[0, 0]]):
        with pytest.raises(ValueError, match="must have the shape"):
            world.step({"ants": np.array(actions)})
    with pytest.raises(ValueError, match="one seed per copy"):
        world.reset([0])
    with pytest.raises(ValueError, match="state of another world"):
        AntColony(rules(n_agents=3), 2).set_state(world.get_state())


def test_picture_shows_nest_food_ants_load_and_pheromone():
    world = AntColony(rules(grid_size=[20, 10], n_agents=1, n_food_sources=1))
    world.reset([0])
    place(world, [(2, 2)], [(15, 7)])
    empty = world.render().astype(int)
    assert empty.shape[2] == 3
    assert empty.shape[1] > 1.5 * empty.shape[0]
    scale = 600 // 20

    def patch(image, x, y):
        return image[10 + y * scale : 10 + (y + 1) * scale, 10 + x * scale : 10 + (x + 1) * scale].mean(axis=(0, 1))

    ground = patch(empty, 8, 8)
    for cell in ((10, 5), (15, 7), (2, 2)):  # nest, food, ant
        assert np.abs(patch(empty, *cell) - ground).max() > 40
    world.carrying[0, 0] = True
    assert not np.array_equal(patch(world.render(), 2, 2), patch(empty, 2, 2))
    world.step({"ants": np.array([[1]])})
    assert patch(world.render(), 2, 2).sum() > ground.sum() + 20


def test_a_batched_step_is_fast():
    world = AntColony(rules(grid_size=[30, 30], n_agents=20, n_food_sources=5), 16)
    world.reset(list(range(16)))
    actions = {"ants": np.random.default_rng(0).integers(5, size=(16, 20))}
    best = np.inf
    for _ in range(30):
        start = time.perf_counter()
        for _ in range(10):
            world.step(actions)
        best = min(best, (time.perf_counter() - start) / 10)
    assert best < 500e-6  # 60 microseconds are usual; a loop over the 320 ants takes more than 1000
