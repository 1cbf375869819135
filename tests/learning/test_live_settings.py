"""PBT's promise: on the first update after an exploit, every setting that enters the loss or the optimizer is the
clone's own.

Related upstream issues: https://github.com/ray-project/ray/issues/62173, 53831, 54755.
"""

import pytest
import torch
from probes import learner_of as learner

from marl_tune.algorithms.ppo import Ppo
from marl_tune.algorithms.ppo_loss import ppo_loss
from marl_tune.learning.adam import Adam
from marl_tune.learning.gradients import clip_and_check
from marl_tune.learning.train_batch import EpisodesToTrainBatch

pytestmark = pytest.mark.usefixtures("ray_session")

DONOR = {
    "algorithm.lr": 1e-3,
    "algorithm.clip_param": 0.1,
    "algorithm.lambda_": 0.9,
    "algorithm.gamma": 0.9,
    "algorithm.reward_scale": 1.0,
    "algorithm.entropy_coeff": 0.01,
    "algorithm.vf_loss_coeff": 0.3,
    "algorithm.kl_coeff": 0.4,
    "algorithm.adam_beta1": 0.8,
    "algorithm.adam_beta2": 0.95,
    "algorithm.adam_eps": 1e-6,
    "algorithm.weight_decay": 0.0,
    "algorithm.grad_clip": 0.3,
    "algorithm.num_epochs": 1,
    "algorithm.minibatch_size": 100,
    "module.intrinsic_weight": 0.1,
    "module.icm_loss_weight": 0.5,
}
CLONE = {
    "algorithm.lr": 7e-4,
    "algorithm.clip_param": 0.25,
    "algorithm.lambda_": 0.8,
    "algorithm.gamma": 0.95,
    "algorithm.reward_scale": 0.5,
    "algorithm.entropy_coeff": 0.002,
    "algorithm.vf_loss_coeff": 0.6,
    "algorithm.kl_coeff": 0.7,
    "algorithm.adam_beta1": 0.85,
    "algorithm.adam_beta2": 0.97,
    "algorithm.adam_eps": 1e-7,
    "algorithm.weight_decay": 1e-4,
    "algorithm.grad_clip": 0.7,
    "algorithm.num_epochs": 2,
    "algorithm.minibatch_size": 200,
    "module.intrinsic_weight": 0.2,
    "module.icm_loss_weight": 0.9,
}


@pytest.fixture
def seen(monkeypatch):
    """What the loss, the batch and the optimizer read, update by update."""
    record: dict[str, list] = {name: [] for name in ("loss", "curiosity", "clip", "batch", "adam", "steps")}
    whole_loss, batch, adam = Ppo.module_loss, EpisodesToTrainBatch.__call__, Adam.step

    def watched_whole_loss(self, module_id, *args):
        record["curiosity"].append({"module.icm_loss_weight": self.module[module_id].unwrapped().loss_weight})
        return whole_loss(self, module_id, *args)

    def watched_loss(inputs, values, batch, dist_class, settings, with_stats):
        record["loss"].append(
            {
                "algorithm.clip_param": settings.clip_param,
                "algorithm.vf_loss_coeff": settings.vf_loss_coeff,
                "algorithm.entropy_coeff": settings.entropy_coeff,
                "algorithm.kl_coeff": settings.kl_coeff,
            }
        )
        record["steps"].append(len(batch["actions"]))
        return ppo_loss(inputs, values, batch, dist_class, settings, with_stats)

    def watched_clip(groups, name_of):
        record["clip"].append({"algorithm.grad_clip": groups[0].limit})
        return clip_and_check(groups, name_of)

    def watched_batch(self, *, rl_module, **kwargs):
        weight, settings = rl_module["shared"].unwrapped().intrinsic_weight, self.settings("shared")
        record["batch"].append(
            {
                "algorithm.gamma": settings.gamma,
                "algorithm.lambda_": settings.lambda_,
                "algorithm.reward_scale": settings.reward_scale,
                "module.intrinsic_weight": weight,
            }
        )
        return batch(self, rl_module=rl_module, **kwargs)

    def watched_adam(self, *args, **kwargs):
        (group,) = self.param_groups
        record["adam"].append(
            {
                "algorithm.lr": group["lr"],
                "algorithm.adam_beta1": group["betas"][0],
                "algorithm.adam_beta2": group["betas"][1],
                "algorithm.adam_eps": group["eps"],
                "algorithm.weight_decay": group["weight_decay"],
            }
        )
        return adam(self, *args, **kwargs)

    monkeypatch.setattr("marl_tune.algorithms.ppo.ppo_loss", watched_loss)
    monkeypatch.setattr("marl_tune.learning.on_policy_learner.clip_and_check", watched_clip)
    monkeypatch.setattr(Ppo, "module_loss", watched_whole_loss)
    monkeypatch.setattr(EpisodesToTrainBatch, "__call__", watched_batch)
    monkeypatch.setattr(Adam, "step", watched_adam)
    return record


def test_first_update_after_an_exploit_uses_the_clones_settings(trial, tmp_path, seen):
    words = ("module=curiosity", "algorithm.use_kl_loss=true")
    donor = trial(DONOR, *words, number=0)
    clone = trial({**DONOR, "algorithm.lr": 5e-3}, *words, number=1)
    donor.train()
    clone.train()
    donor.save(str(tmp_path / "donor"))
    living = clone.algorithm
    clone.reset(CLONE)
    clone.restore(str(tmp_path / "donor"))
    assert clone.algorithm is living, "the exploit was not in place"
    for values in seen.values():
        values.clear()
    clone.train()
    for place in ("loss", "curiosity", "clip", "batch", "adam"):
        for key, value in seen[place][0].items():
            assert value == pytest.approx(CLONE[key], rel=1e-6), f"{key} in the {place}"
        assert all(entry == seen[place][0] for entry in seen[place]), f"{place} changed within the update"
    assert len(seen["steps"]) == 2 * (400 // 200)
    assert set(seen["steps"]) == {200}
    covered = {key for place in ("loss", "curiosity", "clip", "batch", "adam") for key in seen[place][0]}
    assert covered | {"algorithm.num_epochs", "algorithm.minibatch_size"} == set(CLONE)


def test_the_moments_are_the_donors(trial, tmp_path):
    donor, clone = trial({"algorithm.lr": 1e-3}, number=0), trial({"algorithm.lr": 2e-3}, number=1)
    donor.train()
    clone.train()
    donor.save(str(tmp_path / "donor"))
    clone.reset({"algorithm.lr": 3e-3})
    clone.restore(str(tmp_path / "donor"))
    (a,), (b,) = (list(learner(t)._named_optimizers.values()) for t in (donor, clone))
    first, second = a.state_dict()["state"], b.state_dict()["state"]
    assert first.keys() == second.keys()
    assert all(torch.equal(first[i]["exp_avg"], second[i]["exp_avg"]) for i in first)
