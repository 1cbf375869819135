"""The rules of the pricing world against a slow reference, and its equilibria against closed forms and deviations."""

import dataclasses

import numpy as np
import pytest

from marl_tune.envs import default_config
from marl_tune.envs.pricing import Pricing, PricingConfig
from marl_tune.envs.pricing.bertrand import Bertrand
from marl_tune.envs.pricing.equilibrium import Equilibrium, collusion_index, equilibrium, unconstrained
from marl_tune.envs.testing import check_world

DEFAULTS = {
    "name": "pricing",
    "n_agents": 3,
    "price_range": [5.0, 15.0],
    "cost": 4.0,
    "demand_range": [0.5, 1.0],
    "own_slope": 8.0,
    "cross_slope": 3.0,
    "inventory_range": [30.0, 70.0],
    "restock_range": [30.0, 60.0],
    "inventory_cap": None,
    "max_steps": 50,
}
SCARCE = {"own_slope": 3.0, "cross_slope": 1.5, "restock_range": [10.0, 30.0]}
AMPLE = {"inventory_range": [1e5, 1e5], "demand_range": [0.7, 0.8]}  # nothing runs out and every store sells


def rules(**changes):
    return PricingConfig(**(DEFAULTS | changes))


class Reference:
    """One market, in plain loops."""

    def __init__(self, config, inventory, d, prices):
        self.config, self.inventory, self.d, self.prices = config, list(inventory), list(d), list(prices)
        self.steps, self.paid, self.profits, self.sold, self.stockouts = 0, [], [], [], 0

    def observe(self, store):
        others = [price for other, price in enumerate(self.prices) if other != store]
        top = self.config.price_range[1]
        return [self.inventory[store] / 100, self.d[store], *(price / top for price in (self.prices[store], *others))]

    def step(self, prices, restocks):
        config, rewards = self.config, []
        for store, price in enumerate(prices):
            others = [other for index, other in enumerate(prices) if index != store]
            demand = 100 * self.d[store] - config.own_slope * price + config.cross_slope * sum(others) / len(others)
            demand = max(0, demand)
            sales = demand
            if demand > self.inventory[store]:
                sales = self.inventory[store]
                self.stockouts += 1
            self.inventory[store] += restocks[store] - sales
            if config.inventory_cap is not None and self.inventory[store] > config.inventory_cap:
                self.inventory[store] = config.inventory_cap
            profit = (price - config.cost) * sales
            self.paid.append(price)
            self.profits.append(profit)
            self.sold.append(sales)
            rewards.append(profit / 100)
        self.prices, self.steps = list(prices), self.steps + 1
        return rewards, self.steps >= config.max_steps


@pytest.mark.parametrize(
    "changes",
    [
        {},
        SCARCE,
        {"n_agents": 2, "cost": 7.0, "max_steps": 13},
        {"n_agents": 5, "inventory_cap": 75.0, "restock_range": [0.0, 40.0]},
        {"n_agents": 12, "own_slope": 4.0, "demand_range": [0.0, 2.0], "price_range": [0.0, 9.0]},
    ],
)
def test_equals_the_reference_step_by_step(changes):
    config, copies, rng = rules(**changes), 5, np.random.default_rng(0)
    seeds, count = [11 + copy for copy in range(copies)], config.n_agents
    world = Pricing(config, copies)
    observed = world.reset(seeds)["stores"]
    generators = [np.random.default_rng(seed) for seed in seeds]
    markets, seen = [], {"stockout": 0, "no demand": 0, "full": 0}
    for chance in generators:
        d, inventory, prices = (
            chance.uniform(*bounds, count)
            for bounds in (config.demand_range, config.inventory_range, config.price_range)
        )
        markets.append(Reference(config, inventory, d, prices))
    for step_number in range(config.max_steps + 1):
        for copy, market in enumerate(markets):
            for store in range(count):
                assert observed[copy, store] == pytest.approx(market.observe(store), rel=1e-6)
        if step_number == config.max_steps:
            break
        actions = rng.uniform(*config.price_range, (copies, count, 1)).astype(np.float32)
        step = world.step({"stores": actions})
        observed, metrics = step.observations["stores"], world.episode_metrics(np.arange(copies))
        for copy, market in enumerate(markets):
            restocks = generators[copy].uniform(*config.restock_range, count)
            rewards, truncated = market.step(actions[copy, :, 0].tolist(), restocks)
            assert step.rewards["stores"][copy] == pytest.approx(rewards, rel=1e-5, abs=1e-6)
            assert (bool(step.terminated[copy]), bool(step.truncated[copy])) == (False, truncated)
            assert metrics["price_mean"][copy] == pytest.approx(np.mean(market.paid))
            assert metrics["profit_mean"][copy] == pytest.approx(np.mean(market.profits))
            assert metrics["sales_mean"][copy] == pytest.approx(np.mean(market.sold))
            assert metrics["stockout_rate"][copy] == pytest.approx(market.stockouts / len(market.sold))
            seen["no demand"] += market.sold[-count:].count(0)
            seen["full"] += market.inventory.count(config.inventory_cap)
    seen["stockout"] = sum(market.stockouts for market in markets)
    assert seen["stockout"] > 0
    assert seen["no demand"] > 0 or config.n_agents != 12
    assert seen["full"] > 0 or config.inventory_cap is None


def test_start():
    copies = 4000
    config = rules()
    rows = Pricing(config, copies).reset(list(range(copies)))["stores"]
    assert rows.shape == (copies, 3, 5)
    assert rows.dtype == np.float32
    inventory, d, price = rows[..., 0] * 100, rows[..., 1], rows[..., 2] * 15
    for drawn, (low, high) in ((inventory, (30, 70)), (d, (0.5, 1)), (price, (5, 15))):
        shares = (drawn.ravel() - low) / (high - low)
        assert shares.min() > -1e-6
        assert shares.max() < 1 + 1e-6
        counts = np.histogram(shares, 10)[0]  # 12000 draws: 1200 each, chi-square has mean 9 and deviation 4.2
        assert ((counts - 1200.0) ** 2).sum() / 1200 < 9 + 5 * 4.2
        for other in range(3):
            assert abs(np.corrcoef(drawn[:, other], drawn[:, other - 1])[0, 1]) < 5 / np.sqrt(copies)


def test_one_step_by_hand():
    world = Pricing(rules(restock_range=[20.0, 20.0], inventory_cap=60.0, inventory_range=[30.0, 50.0]))
    world.reset([0])
    world.d[0], world.inventory[0] = (0.9, 0.5, 1.0), (50.0, 40.0, 30.0)
    step = world.step({"stores": np.array([[[7.0], [15.0], [8.0]]], np.float32)})
    # Demands: 90 - 56 + 3 * 11.5 = 68.5, 50 - 120 + 3 * 7.5 = -47.5, 100 - 64 + 3 * 11 = 69. Sales: 50, 0, 30.
    assert step.rewards["stores"][0].tolist() == pytest.approx([1.5, 0.0, 1.2])
    first, second, third = step.observations["stores"][0].tolist()
    assert first == pytest.approx([0.2, 0.9, 7 / 15, 15 / 15, 8 / 15])
    assert second == pytest.approx([0.6, 0.5, 15 / 15, 7 / 15, 8 / 15])
    assert third == pytest.approx([0.2, 1.0, 8 / 15, 7 / 15, 15 / 15])
    metrics = {name: float(values[0]) for name, values in world.episode_metrics(np.array([0])).items()}
    assert metrics["price_mean"] == pytest.approx(10.0)
    assert metrics["profit_mean"] == pytest.approx(90.0)
    assert metrics["sales_mean"] == pytest.approx(80 / 3)
    assert metrics["stockout_rate"] == pytest.approx(2 / 3)


def test_a_price_below_cost_loses():
    world = Pricing(rules(cost=6.0))
    world.reset([0])
    assert (world.step({"stores": np.full((1, 3, 1), 5.0, np.float32)}).rewards["stores"] < 0).all()


def test_same_seed_same_play_and_only_truncation():
    crowded = rules(n_agents=12, max_steps=20, inventory_cap=80.0)
    check_world(lambda copies: Pricing(crowded, copies), steps=45)
    world, rng = Pricing(rules(max_steps=7), 4), np.random.default_rng(0)
    world.reset([0, 1, 2, 3])
    for step_number in range(1, 29):
        step = world.step({"stores": rng.uniform(5, 15, (4, 3, 1)).astype(np.float32)})
        assert not step.terminated.any()
        assert step.truncated.tolist() == [step_number % 7 == 0] * 4
        if step.truncated.any():
            world.reset(copies=np.arange(4))


# Equilibria.


def test_closed_forms_meet_their_first_order_conditions():
    config = rules()
    nash, joint = (float(price) for price in unconstrained(config, 0.75))
    assert nash == pytest.approx(107 / 13)  # (75 + 8 * 4) / (2 * 8 - 3) = 8.23
    assert joint == pytest.approx(9.5)  # (75 + 5 * 4) / (2 * 5)
    others = np.array(unconstrained(config, np.linspace(0.5, 1, 11))).mean(axis=1)
    tiny = 1e-4
    for d in (0.5, 0.6, 0.9, 1.0):

        def own(price, others=others[0], d=d):
            return (price - 4) * (100 * d - 8 * price + 3 * others)

        def all_together(price, others=others[1], d=d):  # the others sell 3 more for each unit of this price
            return own(price, others, d) + (others - 4) * 3 * price

        for price, profit in zip(unconstrained(config, d), (own, all_together), strict=True):
            assert profit(price + tiny) == pytest.approx(profit(price - tiny), abs=1e-7)
            assert profit(price) > max(profit(price + tiny), profit(price - tiny))


@pytest.mark.parametrize("changes", [{}, {"n_agents": 2, "own_slope": 7.0, "cross_slope": 5.0}, {"n_agents": 6}])
def test_where_nothing_runs_out_prices_are_the_closed_forms(changes):
    config = rules(**(AMPLE | changes))
    found = equilibrium(config)
    nash, joint = unconstrained(config, found.d)
    assert found.nash == pytest.approx(nash, abs=1e-3)
    assert found.joint == pytest.approx(joint, abs=1e-3)


def test_inventories_raise_the_prices_of_stores_in_demand():
    found = equilibrium(rules())
    nash, joint = unconstrained(rules(), found.d)
    assert 8.2 < found.nash.mean() < 8.4
    assert 9.4 < found.joint.mean() < 9.6
    assert (np.diff(found.nash) > 0).all()
    assert (found.nash + 0.9 < found.joint).all()
    assert found.nash.min() > 5
    assert found.joint.max() < 15
    assert found.nash[0] == pytest.approx(nash[0], abs=0.05)  # little in demand, never short
    assert found.nash[-1] > nash[-1] + 0.3
    assert found.joint.mean() == pytest.approx(joint.mean(), abs=0.1)


def test_where_goods_are_scarce_all_charge_the_highest_price():
    found = equilibrium(rules(**SCARCE))
    assert set(found.nash) == set(found.joint) == {15.0}
    assert np.array(unconstrained(rules(**SCARCE), found.d)).tolist() == [[15.0] * len(found.d)] * 2
    metrics = played(rules(**SCARCE), 8, lambda d: 15.0 + 0 * d)
    assert metrics["stockout_rate"].mean() > 0.9
    assert metrics["collusion_index"].tolist() == [0.0] * 8


def played(config, copies, rule, changed=None):
    """Metrics of episodes (copies,) in which stores charge `rule` of their d; store 0's price is `changed`, a function
    of d and its price by the rule. With `own_profit`, store 0's mean profit in a step."""
    world = Pricing(config, copies)
    d = world.reset(list(range(copies)))["stores"][..., 1].astype(np.float64)
    price = rule(d)
    if changed is not None:
        price[:, 0] = changed(d[:, 0], price[:, 0])
    actions, own = np.clip(price, *config.price_range)[..., None].astype(np.float32), 0.0
    for _ in range(config.max_steps):
        own = own + world.step({"stores": actions}).rewards["stores"][:, 0] * 100 / config.max_steps
    return world.episode_metrics(np.arange(copies)) | {"own_profit": own}


@pytest.mark.parametrize(
    "changes", [{}, {"n_agents": 2, "inventory_cap": 70.0}, {"cross_slope": 6.0, "restock_range": [20.0, 50.0]}]
)
def test_no_store_gains_by_leaving_the_nash_price(changes):
    config, copies = rules(**changes), 600
    found = equilibrium(config)
    kept = played(config, copies, found.nash_at)["own_profit"]
    middle = sum(config.demand_range) / 2
    for delta in (-1.0, -0.3, 0.3, 1.0):
        for whom in (lambda d: d >= 0, lambda d: d < middle, lambda d: d > middle + 0.1):
            left = played(config, copies, found.nash_at, lambda d, p, delta=delta, whom=whom: p + delta * whom(d))
            assert (left["own_profit"] - kept).mean() < 2e-3 * kept.mean(), (delta, "must not pay")
    assert (played(config, copies, found.nash_at, lambda d, p: p + 2)["own_profit"] - kept).mean() < -0.03 * kept.mean()


@pytest.mark.parametrize("changes", [{}, {"cross_slope": 5.0, "restock_range": [20.0, 50.0]}])
def test_no_other_common_price_earns_more_than_the_joint_one(changes):
    config, copies = rules(**changes), 600
    found = equilibrium(config)
    joint = played(config, copies, found.joint_at)["profit_mean"].mean()
    assert joint > 1.001 * played(config, copies, found.nash_at)["profit_mean"].mean()
    for delta in (-1.0, -0.4, 0.4, 1.0):
        moved = played(config, copies, lambda d, delta=delta: found.joint_at(d) + delta)["profit_mean"].mean()
        assert moved < joint * (1 + 1e-3)
    cheat = played(config, copies, found.joint_at, lambda d, p: p - 0.5)["own_profit"].mean()
    assert cheat > played(config, copies, found.joint_at)["own_profit"].mean()  # or there would be no dilemma


def test_index_is_0_at_nash_play_and_1_at_joint_play():
    config = rules()
    found = equilibrium(config)
    for rule, index in ((found.nash_at, 0.0), (found.joint_at, 1.0)):
        metrics = played(config, 20, rule)
        assert metrics["collusion_index"] == pytest.approx(np.full(20, index), abs=1e-6)
        assert metrics["price_mean"] == pytest.approx(metrics[("nash_price", "joint_price")[int(index)]])
    metrics = played(config, 20, lambda d: (found.nash_at(d) + found.joint_at(d)) / 2)
    assert metrics["collusion_index"] == pytest.approx(np.full(20, 0.5), abs=1e-6)
    values = collusion_index(np.array([8.0, 6.0, 9.0]), np.array([8.0, 8.0, 9.0]), np.array([10.0, 10.0, 9.0]), [5, 15])
    assert values.tolist() == [0.0, -1.0, 0.0]


def test_metrics_are_finite_before_the_first_step():
    world = Pricing(rules(), 3)
    world.reset([0, 1, 2])
    assert all(np.isfinite(values).all() for values in world.episode_metrics(np.arange(3)).values())


def test_bertrand_plays_the_nash_price_of_each_store():
    config = rules(n_agents=4)
    world = Pricing(config, 50)
    player, observations = Bertrand(world), world.reset(list(range(50)))
    for _ in range(config.max_steps):
        actions = player.act(observations)
        assert actions["stores"].shape == (50, 4, 1)
        observations = world.step(actions).observations
    assert world.episode_metrics(np.arange(50))["collusion_index"] == pytest.approx(np.zeros(50), abs=1e-5)


def test_equilibrium_is_worked_out_once_and_always_the_same():
    from marl_tune.envs.pricing import equilibrium as pricing_equilibrium

    first = equilibrium(rules())
    assert equilibrium(rules(name="pricing")) is first
    assert equilibrium(rules(cost=4.5)) is not first
    pricing_equilibrium.solve.cache_clear()
    again = equilibrium(rules())
    assert isinstance(again, Equilibrium)
    assert np.array_equal(first.nash, again.nash)
    assert np.array_equal(first.joint, again.joint)


def test_equilibrium_where_all_stores_are_alike():
    found = equilibrium(rules(demand_range=[0.75, 0.75], inventory_range=[1e5, 1e5]))
    assert found.nash_at(np.float32([0.7499999, 0.75, 0.7500001])) == pytest.approx([107 / 13] * 3, abs=1e-4)
    assert found.joint_at(np.array([0.75])) == pytest.approx([9.5], abs=1e-4)


# Settings, arguments, picture.


@pytest.mark.parametrize(
    ("key", "value", "rule"),
    [
        ("n_agents", 1, "at least 2"),
        ("max_steps", 0, "at least 1"),
        ("price_range", [5.0], "lowest, highest"),
        ("price_range", [15.0, 5.0], "lowest <= highest"),
        ("price_range", [5.0, 5.0], "lowest < highest"),
        ("price_range", [-1.0, 5.0], "0 <= lowest"),
        ("cost", 15.0, "below the highest price"),
        ("cost", -1.0, r"in \[0, 15"),
        ("cost", float("nan"), r"in \[0, 15"),
        ("demand_range", [0.5, float("inf")], "lowest <= highest"),
        ("demand_range", [1.0, 0.5], "lowest <= highest"),
        ("own_slope", 3.0, r"above env\.cross_slope, 3"),
        ("own_slope", float("inf"), "finite"),
        ("cross_slope", -0.1, "at least 0"),
        ("inventory_range", [70.0, 30.0], "lowest <= highest"),
        ("restock_range", [-1.0, 30.0], "0 <= lowest"),
        ("inventory_cap", 69.0, r"at least the highest of env\.inventory_range, 70"),
    ],
)
def test_bad_settings_are_refused_by_name(key, value, rule):
    with pytest.raises(ValueError, match=rf"env\.{key} must .*{rule}.*got"):
        rules(**{key: value})


def test_shipped_settings_and_what_is_structural():
    assert default_config("pricing") == rules()
    structural = {field.name for field in dataclasses.fields(PricingConfig) if field.metadata.get("structural")}
    assert structural == {"n_agents", "price_range", "curriculum"}


def test_wrong_arguments_are_refused():
    world = Pricing(rules(), 2)
    world.reset([0, 1])
    for actions in (
        np.full((2, 3), 9.0),
        np.full((2, 3, 1), 4.9),
        np.full((2, 3, 1), 15.1),
        np.full((2, 3, 1), np.nan),
    ):
        with pytest.raises(ValueError, match=r"shape \(2, 3, 1\) and be in \[5\.0, 15\.0\]"):
            world.step({"stores": actions})
    with pytest.raises(ValueError, match="one seed per copy"):
        world.reset([0])
    with pytest.raises(ValueError, match="state of another world"):
        Pricing(rules(n_agents=4), 2).set_state(world.get_state())


def test_picture_shows_prices_inventories_sales_and_unmet_demand():
    world = Pricing(rules())
    world.reset([0])
    world.price[0], world.inventory[0] = (5.0, 10.0, 15.0), (100.0, 50.0, 0.0)
    world.sales[0], world.demand[0] = (20.0, 20.0, 0.0), (20.0, 80.0, 0.0)
    image = world.render()

    def heights(left, width):
        """Rows from 70 to 350 in which the middle of each store's bar is in its colour."""
        colours = [(94, 160, 240), (236, 150, 76), (120, 206, 124)]
        columns = [left + round((store + 0.5) * width / 3) for store in range(3)]
        return [int((image[70:350, c] == rgb).all(axis=-1).sum()) for c, rgb in zip(columns, colours, strict=True)]

    assert heights(20, 220) == pytest.approx([0, 140, 280], abs=8)  # the lines of the equilibria cross the bars
    assert heights(370, 180) == pytest.approx([280, 140, 0], abs=2)
    assert heights(580, 180) == pytest.approx([56, 58, 0], abs=2)  # two more rows for the outline of what was missed
    for extreme in (rules(n_agents=90, price_range=[0.0, 1e9], inventory_range=[0.0, 1e9]), rules(**SCARCE)):
        other = Pricing(extreme, 2)
        other.reset([0, 1])
        assert other.render(1).shape == image.shape
