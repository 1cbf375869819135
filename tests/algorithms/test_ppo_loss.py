"""Our loss and our learner against RLlib's own, on the same batches."""

import math
from collections import defaultdict
from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest
import torch
from ray.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner
from ray.rllib.core.learner.training_data import TrainingData
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch
from ray.rllib.utils.metrics.metrics_logger import MetricsLogger

from marl_tune.algorithms.ppo import Ppo
from marl_tune.algorithms.ppo_loss import PpoSettings, ppo_loss
from marl_tune.algorithms.rllib_config import algorithm_config
from marl_tune.modules.parts.actions import distribution_class, mask_logits
from marl_tune.sharing.build_world import build_world
from marl_tune.sharing.module_specs import build_policy_map, module_specs

SPACES = {
    "discrete": gym.spaces.Discrete(5),
    "masked": gym.spaces.Discrete(5),
    "multi_discrete": gym.spaces.MultiDiscrete([3, 4]),
    "box": gym.spaces.Box(-1, 1, (3,), np.float32),
}
PLAIN = PpoSettings(0.2, 0.01, 0.5, math.inf, None)
SETTINGS = {
    "plain": PLAIN,
    "no entropy": PpoSettings(0.1, 0.0, 1.0, math.inf, None),
    "kl": PpoSettings(0.2, 0.02, 0.5, math.inf, 0.3),
    "limited values": PpoSettings(0.2, 0.01, 0.5, 0.4, None),
    "no critic": PpoSettings(0.2, 0.01, 0.5, math.inf, 0.2),
}
LOGGED = ["policy_loss", "vf_loss", "vf_loss_unclipped", "entropy", "mean_kl_loss", "vf_explained_var"]


def random_batch(kind, lead):
    """Inputs of the distribution and values, which take gradients, and the batch that goes with them."""
    torch.manual_seed(3)
    space = SPACES[kind]
    width = {"multi_discrete": 7, "box": 6}.get(kind, 5)
    inputs, old, values = torch.randn(*lead, width), torch.randn(*lead, width), torch.randn(*lead)
    if kind == "masked":
        mask = (torch.rand(*lead, width) > 0.4).float()
        mask[..., 0] = 1
        inputs, old = mask_logits(inputs, mask), mask_logits(old, mask)
    dist = distribution_class(space).from_logits(old)
    actions = dist.sample()
    batch = {
        "actions": actions,
        "action_logp": dist.logp(actions),
        "action_dist_inputs": old,
        "advantages": torch.randn(*lead),
        "value_targets": torch.randn(*lead),
    }
    return inputs.requires_grad_(), values.requires_grad_(), batch, distribution_class(space)


def rllibs(inputs, values, batch, dist_class, settings):
    """RLlib's loss of the same numbers, and what it logs."""
    module = SimpleNamespace(
        unwrapped=lambda: module,
        get_train_action_dist_cls=lambda: dist_class,
        get_exploration_action_dist_cls=lambda: dist_class,
        compute_values=lambda batch, embeddings: values,
    )
    config = SimpleNamespace(**vars(settings), use_critic=values is not None, use_kl_loss=settings.kl_coeff is not None)
    learner = SimpleNamespace(
        module={"m": module},
        metrics=MetricsLogger(),
        entropy_coeff_schedulers_per_module=defaultdict(
            lambda: SimpleNamespace(get_current_value=lambda: settings.entropy_coeff)
        ),
        curr_kl_coeffs_per_module={"m": settings.kl_coeff},
    )
    loss = PPOTorchLearner.compute_loss_for_module(
        learner, module_id="m", config=config, batch=batch, fwd_out={"action_dist_inputs": inputs}
    )
    return loss, {name: torch.as_tensor(learner.metrics.peek(("m", name))).item() for name in LOGGED}


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("lead", [(64,), (9, 7)], ids=["rows", "sequences"])
@pytest.mark.parametrize("kind", SPACES)
def test_loss_gradients_and_what_is_logged_are_rllibs(kind, lead, settings):
    inputs, values, batch, dist_class = random_batch(kind, lead)
    values = None if settings == "no critic" else values
    if len(lead) == 2:
        batch["loss_mask"] = torch.arange(lead[1])[None] < torch.randint(1, lead[1] + 1, (lead[0], 1))
    expected, logged = rllibs(inputs, values, batch, dist_class, SETTINGS[settings])
    leaves = [inputs] if values is None else [inputs, values]
    wanted = torch.autograd.grad(expected, leaves)
    loss, stats = ppo_loss(inputs, values, batch, dist_class, SETTINGS[settings], True)
    got = torch.autograd.grad(loss, leaves)
    assert loss.detach().item() == pytest.approx(expected.detach().item(), abs=1e-6)
    for ours, theirs in zip(got, wanted, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-6)
    for name, value in stats.items():
        if len(lead) == 1 or name != "vf_explained_var":  # RLlib's takes padding into it
            assert value.item() == pytest.approx(logged[name], abs=1e-5), name
    assert ppo_loss(inputs, values, batch, dist_class, SETTINGS[settings], False)[0].detach() == loss.detach()


class Stock(PPOTorchLearner):
    """RLlib's learner, with our Adam."""

    configure_optimizers_for_module = Ppo.configure_optimizers_for_module
    _register_adam = Ppo._register_adam
    _adam_settings = Ppo._adam_settings
    _lr_left = Ppo._lr_left


@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize(
    "more", [[], ["algorithm.use_kl_loss=true", "algorithm.grad_clip=0.05"]], ids=["plain", "kl, clip"]
)
def test_an_update_leaves_the_parameters_that_rllibs_learner_leaves(tiny, more):
    """Two epochs of four minibatches in a fixed order, from the same weights.

    With a large eps, since Adam divides a vanishing gradient by itself: rounding would decide its direction.
    """
    sweep = tiny("algorithm.adam_eps=1e-3", "algorithm.shuffle_batch_per_epoch=false", *more)
    config, spec = algorithm_config(sweep), module_specs(sweep, build_policy_map(sweep, build_world(sweep, 1)))
    learners = [kind(config=config.copy(copy_frozen=False), module_spec=spec) for kind in (Stock, Ppo)]
    for learner in learners:
        learner.build()
    learners[1].module.set_state(learners[0].module.get_state())
    torch.manual_seed(0)
    old = 0.1 * torch.randn(400, 5)
    dist = distribution_class(gym.spaces.Discrete(5)).from_logits(old)
    actions = dist.sample()
    columns = {
        "obs": torch.rand(400, 9),
        "actions": actions,
        "action_logp": dist.logp(actions),
        "action_dist_inputs": old,
        "advantages": torch.randn(400),
        "value_targets": torch.randn(400),
    }
    results = []
    for learner in learners:
        batch = MultiAgentBatch({"shared": SampleBatch({k: v.clone() for k, v in columns.items()})}, env_steps=400)
        results.append(learner.update(training_data=TrainingData(batch=batch), num_epochs=2, minibatch_size=100))
    theirs, ours = (dict(learner.module["shared"].named_parameters()) for learner in learners)
    for name, parameter in theirs.items():
        assert torch.allclose(ours[name], parameter, atol=1e-6), name
    for name in ("total_loss", "policy_loss", "vf_loss", "entropy", "mean_kl_loss"):
        assert float(results[1]["shared"][name].peek()) == pytest.approx(
            float(results[0]["shared"][name].peek()), abs=1e-6
        )
