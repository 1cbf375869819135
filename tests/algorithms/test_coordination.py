"""What a critic that sees all of a game knows, and what an agent alone cannot know (`coordination_game`)."""

from dataclasses import replace

import numpy as np
import pytest

from marl_tune.envs import default_config

GAME = (
    "cluster.num_envs_per_env_runner=50",
    "algorithm.num_epochs=4",
    "algorithm.lr=3e-3",
    "algorithm.gamma=1.0",
    "module.hidden_dims=[16]",
)
CENTRAL = "sharing=shared_critic"


@pytest.fixture
def tiny(tiny):
    """The debug sweep, in the game."""

    def make(*words):
        game = default_config("pettingzoo", id="coordination_game", kwargs={}, fixed_team=True)
        return replace(tiny(*GAME, *words), env=game)

    return make


@pytest.mark.slow
def test_a_central_critic_knows_what_no_agent_sees(trial):
    """Half of the return is luck to who sees one bit; both bits tell it."""
    alone, central = trial(None, "module.separate_critic=true"), trial(None, CENTRAL)
    normalised = trial(None, "algorithm=mappo", CENTRAL)
    for _ in range(12):
        own, *shared = (one.train()["learners"] for one in (alone, central, normalised))
    assert own["shared"]["vf_explained_var"] < 0.5
    assert all(learners["critic"]["vf_explained_var"] > 0.8 for learners in shared)
    assert shared[0]["critic"]["vf_loss"] < 0.5 * own["shared"]["vf_loss"]


@pytest.mark.slow
def test_mappo_learns_the_game(trial):
    """1 for playing the own bits, where chance has 0.25; luck adds 0 on average."""
    one = trial(None, "algorithm=mappo", CENTRAL)
    returns = [one.train()["return_mean_agent"] for _ in range(60)]
    print("RESULT", returns[0], np.mean(returns[-20:]))
    assert np.mean(returns[-20:]) > 0.7
