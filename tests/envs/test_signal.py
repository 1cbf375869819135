"""The signal world: who is paid for what, what can be known, and what a channel is worth."""

import numpy as np
import pytest

from marl_tune import envs
from marl_tune.envs.signal.switchboard import Switchboard
from marl_tune.envs.signal.world import GROUP, Signal, derangement


def world(num_envs=3, **settings):
    made = envs.make_world(envs.default_config("signal", **settings), num_envs)
    made.reset(list(range(num_envs)))
    return made


def decoded(one):
    """The three codes of the observations of a world that was just reset: own number, partner, symbol, each (B, N)."""
    agents, symbols = one.config.n_agents, one.config.n_symbols
    seen = one.reset()[GROUP]
    codes = np.split(seen, [agents, 2 * agents], axis=-1)
    assert [code.shape[-1] for code in codes] == [agents, agents, symbols]
    assert all((code.sum(-1) == 1).all() for code in codes), "one-hot"
    return [code.argmax(-1) for code in codes]


@pytest.mark.parametrize(("agents", "symbols"), [(2, 2), (5, 3)])
def test_observations_are_own_number_partner_and_symbol(agents, symbols):
    one = world(50, n_agents=agents, n_symbols=symbols)
    own, partner, symbol = decoded(one)
    assert (own == np.arange(agents)).all()
    assert (partner != own).all(), "nobody is its own partner"
    assert (np.sort(partner, axis=1) == np.arange(agents)).all(), "each is the partner of one"
    assert set(symbol.ravel()) == set(range(symbols))


def test_an_agent_is_paid_for_naming_its_partners_symbol():
    one = world(4)
    rng = np.random.default_rng(0)
    seen, right = one.reset()[GROUP], 0
    for step in range(20):
        symbol, partner = seen[..., 8:].argmax(-1), seen[..., 4:8].argmax(-1)
        actions = rng.integers(4, size=(4, 4))
        result = one.step({GROUP: actions})
        for copy in range(4):
            for agent in range(4):
                hit = actions[copy, agent] == symbol[copy, partner[copy, agent]]
                assert result.rewards[GROUP][copy, agent] == float(hit)
                right += hit
        assert (result.observations[GROUP][..., :8] == seen[..., :8]).all(), "partners stay for the episode"
        assert result.truncated.all() == (step == 19)
        assert not result.terminated.any()
        seen = result.observations[GROUP]
        assert one.episode_metrics(np.arange(4))["accuracy"].mean() == pytest.approx(right / (16 * (step + 1)))


def test_the_switchboard_earns_all():
    one = world(5, n_agents=3, n_symbols=7)
    script, seen = Switchboard(one), one.reset()
    for _ in range(20):
        result = one.step(script.act(seen))
        assert (result.rewards[GROUP] == 1.0).all()
        seen = result.observations
    assert (one.episode_metrics(np.arange(5))["accuracy"] == 1.0).all()


def test_what_an_agent_can_know_says_nothing_of_its_partners_symbol():
    """The best guess from the own symbol, now or before, is right as often as chance: 1 / K."""
    one = world(2000, max_steps=2)
    seen = one.reset()[GROUP]
    later = one.step({GROUP: np.zeros((2000, 4), np.int64)}).observations[GROUP]
    partner = seen[..., 4:8].argmax(-1)
    target = np.take_along_axis(later[..., 8:].argmax(-1), partner, axis=1)
    before = np.take_along_axis(seen[..., 8:].argmax(-1), partner, axis=1)
    for known in (later[..., 8:].argmax(-1), seen[..., 8:].argmax(-1), partner, before):
        together = np.zeros((4, 4))
        np.add.at(together, (known.ravel(), target.ravel()), 1)
        best = together.max(axis=1).sum() / together.sum()
        assert best == pytest.approx(0.25, abs=0.02)


@pytest.mark.parametrize("count", [2, 3, 4])
def test_derangements_are_uniform(count):
    rng = np.random.default_rng(0)
    drawn, times = np.unique([derangement(count, rng) for _ in range(3000)], axis=0, return_counts=True)
    assert len(drawn) == {2: 1, 3: 2, 4: 9}[count]
    assert (drawn != np.arange(count)).all()
    assert np.allclose(times * len(drawn) / 3000, 1.0, atol=0.2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_agents": 1}, r"env\.n_agents must be at least 2, got 1"),
        ({"n_symbols": 1}, r"env\.n_symbols must be at least 2, got 1"),
        ({"max_steps": 0}, r"env\.max_steps must be at least 1, got 0"),
    ],
)
def test_settings_out_of_range_name_the_key(settings, message):
    with pytest.raises(ValueError, match=message):
        envs.default_config("signal", **settings)


@pytest.mark.parametrize("actions", [np.full((3, 4), 4), np.full((3, 4), -1), np.zeros((3, 5), np.int64)])
def test_actions_that_name_no_symbol_are_refused(actions):
    with pytest.raises(ValueError, match="actions of agents must"):
        world().step({GROUP: actions})


def test_the_picture_shows_symbols_and_who_was_right():
    one = world(1)
    before = one.render()
    one.step(Switchboard(one).act(one.reset()))
    after = one.render()
    assert before.shape == after.shape
    assert (before != after).any()
    assert isinstance(one, Signal)
