"""Every registered algorithm keeps the contract of `marl_tune.testing`; learners that break it are rejected."""

import pytest

from marl_tune.config.compose import compose
from marl_tune.config.registry import ALGORITHMS
from marl_tune.testing import TINY, check_algorithm, check_live_settings, check_loss_falls

WORDS = {"mappo": ("sharing=shared_critic",)}


@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize("name", ALGORITHMS)
def test_algorithm_keeps_the_contract(name):
    check_algorithm(name, *WORDS.get(name, ()))


@pytest.mark.usefixtures("ray_session")
def test_a_loss_that_is_climbed_is_rejected(monkeypatch):
    from marl_tune.algorithms.a2c import A2c

    loss = A2c._policy_loss

    def climbed(self, *args):
        value, stats = loss(self, *args)
        return 2 * value.detach() - value, stats  # the same value, the gradient of its negative

    monkeypatch.setattr(A2c, "_policy_loss", climbed)
    (sweep,) = compose([*TINY, "algorithm=a2c"])
    with pytest.raises(AssertionError, match="took the loss of shared"):
        check_loss_falls(sweep)


@pytest.mark.usefixtures("ray_session")
def test_settings_that_a_living_learner_keeps_are_rejected(monkeypatch):
    from marl_tune.algorithms.a2c import A2c

    settings = A2c._update_settings

    def first(self, module_id):
        built_with = self.__dict__.setdefault("built_with", self.config)
        now, self.config = self.config, built_with
        try:
            return settings(self, module_id)
        finally:
            self.config = now

    build = A2c.build
    monkeypatch.setattr(A2c, "_update_settings", first)
    monkeypatch.setattr(A2c, "build", lambda self: (build(self), self.__dict__.setdefault("built_with", self.config)))
    (sweep,) = compose([*TINY, "algorithm=a2c", "algorithm.entropy_coeff=0.1"])
    with pytest.raises(AssertionError, match="does not use all of its new settings"):
        check_live_settings(sweep)
