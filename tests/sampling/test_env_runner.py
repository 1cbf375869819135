"""The batched runner against RLlib's own: the same episodes and the same training batch from the same seeds."""

import dataclasses
import time
from collections import Counter

import numpy as np
import pytest
import torch
from ray.rllib.algorithms.appo import APPOConfig
from ray.rllib.algorithms.impala import IMPALAConfig
from ray.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner
from ray.rllib.core.distribution.torch.torch_distribution import TorchCategorical
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.rllib.env.single_agent_episode import SingleAgentEpisode

from marl_tune.algorithms.rllib_config import algorithm_config
from marl_tune.envs import default_config
from marl_tune.learning.train_batch import BatchSettings, EpisodesToTrainBatch
from marl_tune.sampling.env_runner import BatchedEnvRunner
from marl_tune.sampling.rllib_env_runner import RllibEnvRunner
from marl_tune.sharing.module_specs import module_specs

pytestmark = pytest.mark.usefixtures("ray_session")
COPIES, AGENTS = 2, 4


def runners(tiny, *words):
    """Both runners with the same weights, their worlds at the start of the same episodes."""
    sweep = tiny(f"cluster.num_envs_per_env_runner={COPIES}", *words)
    ours = BatchedEnvRunner(config=algorithm_config(sweep))
    sweep = tiny(f"cluster.num_envs_per_env_runner={COPIES}", "cluster.rollout=rllib", *words)
    theirs = RllibEnvRunner(config=algorithm_config(sweep))
    ours.module.set_state(theirs.module.get_state())
    ours.begin()
    ours.rollout.observations = ours.env.reset([theirs._seed + copy for copy in range(COPIES)])
    return ours, theirs, sweep


@pytest.fixture
def draws_that_depend_on_the_row_only(monkeypatch):
    """RLlib's rows stand in the order of a set of agents: draws one after the other would go to other agents there."""

    def sample(self, **kwargs):
        logits = self._dist.logits
        noise = torch.frac(1e4 * torch.sin(1e3 * logits.sum(-1, keepdim=True) + torch.arange(logits.shape[-1]))).abs()
        return (logits - torch.log(-torch.log(noise.clamp(1e-6, 1 - 1e-6)))).argmax(-1)

    def draw(dist_class, inputs, explore):
        dist = dist_class.from_logits(inputs)
        actions = dist.sample()
        return actions, dist.logp(actions)

    monkeypatch.setattr(TorchCategorical, "sample", sample)
    monkeypatch.setattr("marl_tune.sampling.policies.sample_actions", draw)  # which draws without RLlib's objects


def sample_both(ours, theirs, steps):
    """One fragment of each; RLlib's episodes without its mistake at truncations (see test_ray_pins.py)."""
    expected = theirs.sample(num_timesteps=steps * COPIES * AGENTS)
    for episode in expected:
        for part in (episode, *episode.agent_episodes.values()):
            part.is_terminated = part.is_terminated and not part.is_truncated
    return ours.sample(num_timesteps=steps * COPIES), expected


@pytest.mark.usefixtures("draws_that_depend_on_the_row_only")
def test_episodes_are_rllibs(tiny):
    """Over several episodes (of 20 steps at most) and three fragments: observations, actions, rewards, log p, ends."""
    ours, theirs, _ = runners(tiny)
    for steps in (7, 30, 13):
        got, expected = sample_both(ours, theirs, steps)
        pieces = [part for episode in expected for part in episode.agent_episodes.values()]
        assert [p.agent_id for p in got] == [p.agent_id for p in pieces]
        for a, b in zip(got, pieces, strict=True):
            assert np.array_equal(a.observations.data, b.get_observations())
            assert np.array_equal(a.actions.data, b.get_actions())
            assert np.array_equal(a.rewards.data, np.float32(b.get_rewards()))
            assert np.allclose(a.extra_model_outputs["action_logp"].data, b.get_extra_model_outputs("action_logp"))
            assert (a.is_terminated, a.is_truncated, a.t_started) == (b.is_terminated, b.is_truncated, b.t_started)
            assert a.module_id == b.module_id == "shared"


@pytest.mark.usefixtures("draws_that_depend_on_the_row_only")
@pytest.mark.parametrize("sharing", ["parameter_sharing", "independent"])
def test_the_training_batch_is_rllibs(tiny, sharing):
    """RLlib's runner and its whole learner pipeline; ours and ours. Equal but for RLlib's masked bootstrap rows."""
    ours, theirs, sweep = runners(tiny, f"sharing={sharing}")
    got, expected = sample_both(ours, theirs, 33)
    config = algorithm_config(sweep).learners(add_default_connectors_to_learner_pipeline=True)
    learner = PPOTorchLearner(config=config, module_spec=module_specs(sweep, ours.policy_map))
    learner.build()
    batches = learner._learner_connector(
        rl_module=learner.module, batch={}, episodes=expected, shared_data={}, metrics=learner.metrics
    )
    train_batch = EpisodesToTrainBatch(lambda _: BatchSettings(gamma=config.gamma, lambda_=config.lambda_))
    own = train_batch(rl_module=learner.module, batch={}, episodes=got)
    assert own.keys() == batches.keys()
    for module_id, batch in batches.items():
        real = torch.as_tensor(batch["loss_mask"])
        columns = {name: torch.as_tensor(batch[name])[real] for name in COLUMNS}
        # RLlib standardises over the bootstrap rows too, which are not learned from.
        raw = columns["advantages"]
        columns["advantages"] = (raw - raw.mean()) / raw.std(unbiased=False)
        # RLlib's agents stand in the order of a set.
        expected_rows, rows = (in_order({name: c[name] for name in COLUMNS}) for c in (columns, own[module_id]))
        assert rows.shape == expected_rows.shape == (33 * COPIES * AGENTS / len(batches), 9 + 5 + 5)
        assert np.allclose(rows, expected_rows, atol=1e-5)


COLUMNS = ("obs", "actions", "rewards", "action_logp", "action_dist_inputs", "value_targets", "advantages")


def in_order(columns):
    """(rows, width) of all columns, sorted by what is in them."""
    table = np.concatenate([np.float64(c).reshape(len(c), -1) for c in columns.values()], axis=1)
    return table[np.lexsort(table.round(4).T[::-1])]


def test_a_piece_is_what_rllibs_constructor_makes(tiny):
    ours, _, _ = runners(tiny)
    for piece in ours.sample(num_timesteps=60):
        made = SingleAgentEpisode(
            id_=piece.id_,
            observations=piece.observations,
            infos=piece.infos,
            actions=piece.actions,
            rewards=piece.rewards,
            terminated=piece.is_terminated,
            truncated=piece.is_truncated,
            extra_model_outputs=piece.extra_model_outputs,
            t_started=piece.t_started,
            len_lookback_buffer=0,
            agent_id=piece.agent_id,
            module_id=piece.module_id,
            multi_agent_episode_id=piece.multi_agent_episode_id,
        )
        for slot in SingleAgentEpisode.__slots__:
            a, b = getattr(piece, slot), getattr(made, slot)
            assert a is b or a == b, slot
        piece.validate()


def played(runner):
    return runner.get_metrics()["num_episodes"].peek()


def test_whole_episodes_are_spread_evenly_over_the_copies(tiny):
    ours, _, _ = runners(tiny)
    pieces = ours.sample(num_episodes=5)
    assert sorted(Counter(record.copy for record in ours.rollout.finished).items()) == [(0, 3), (1, 2)]
    episodes = {piece.multi_agent_episode_id for piece in pieces}
    assert len(episodes) == played(ours) == 5
    for episode in episodes:
        parts = [p for p in pieces if p.multi_agent_episode_id == episode and p.agent_id == "ant_0"]
        assert [p.t_started for p in parts] == [0, *np.cumsum([len(p) for p in parts])[:-1]]
        assert [p.is_done for p in parts] == [False] * (len(parts) - 1) + [True]
    assert all(piece.t_started == 0 for piece in ours.sample(num_timesteps=10)), "the next fragment starts afresh"


def test_rllibs_evaluation_plays_with_it(tiny):
    config = algorithm_config(tiny("cluster.num_envs_per_env_runner=2"))
    config.evaluation(evaluation_interval=1, evaluation_duration=3, evaluation_duration_unit="episodes")
    algorithm = config.build_algo()
    result = algorithm.train()["evaluation"]["env_runners"]
    algorithm.stop()
    assert result["num_episodes"] == 3
    assert np.isfinite(result["episode_return_mean"])


@pytest.mark.slow
@pytest.mark.parametrize("config", [APPOConfig, IMPALAConfig])
def test_asynchronous_algorithms_train_with_it(tiny, config):
    """APPO and IMPALA fetch fragments, metrics and weights from runners while they learn; all else is RLlib's own."""
    sweep = tiny("cluster.num_envs_per_env_runner=2")
    base = algorithm_config(sweep)
    asynchronous = (
        config()
        .environment(env=base.env, env_config=base.env_config, disable_env_checking=True)
        .env_runners(
            env_runner_cls=BatchedEnvRunner,
            num_env_runners=1,
            num_cpus_per_env_runner=0.5,
            num_envs_per_env_runner=2,
            rollout_fragment_length=10,
            create_env_on_local_worker=True,
        )
        .learners(num_learners=0, num_aggregator_actors_per_learner=0)
        .multi_agent(policies={"shared"}, policy_mapping_fn=lambda *_, **__: "shared")
        .rl_module(model_config=DefaultModelConfig(fcnet_hiddens=[8]))
        .training(train_batch_size_per_learner=40, lr=1e-3)
        .reporting(min_time_s_per_iteration=1)
        .debugging(seed=0, log_level="ERROR")
    )
    algorithm = asynchronous.build_algo()
    before = {k: v.numpy().copy() for k, v in algorithm.get_module("shared").state_dict().items()}
    sampled, numbers, deadline = 0, [0], time.monotonic() + 40
    while numbers[0] == 0 and time.monotonic() < deadline:
        sampled = max(sampled, algorithm.train()["env_runners"].get("num_env_steps_sampled_lifetime", 0))
        numbers = algorithm.env_runner_group.foreach_env_runner(
            lambda runner: runner._weights_seq_no, local_env_runner=False
        )
    (weights,) = algorithm.env_runner_group.foreach_env_runner(
        lambda runner: runner.get_state()["rl_module"]["shared"], local_env_runner=False
    )
    algorithm.stop()
    assert sampled > 0
    assert any(not np.allclose(before[name], value) for name, value in weights.items()), "no new weights arrived"


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    ("probe", "words"),
    [
        ("masked", ["module=mlp"]),
        ("masked", ["module=gru", "module.max_seq_len=4"]),
        ("camera", ["module=cnn", "module.conv_filters=[[4,3,2]]"]),
        (None, ["sharing=independent"]),
    ],
    ids=["masks", "masks, memory", "pixels", "mixed spaces"],
)
def test_every_kind_of_observation_is_learned_from(tiny, probe, words, workers):
    mixed = {"id": "mpe/simple_tag_v3", "kwargs": {"max_cycles": 10}}
    probed = {"id": "pettingzoo_probes", "kwargs": {"probe": probe}, "fixed_team": True}
    env = default_config("pettingzoo", workers=workers, **(mixed if probe is None else probed))
    sweep = dataclasses.replace(tiny("cluster.num_envs_per_env_runner=3", *words), env=env)
    algorithm = algorithm_config(sweep).build_algo()
    runner = algorithm.env_runner_group.local_env_runner
    for piece in runner.sample(num_timesteps=60):
        seen, actions = piece.observations.data, piece.actions.data
        if probe == "masked":
            allowed = np.take_along_axis(seen["action_mask"][:-1], actions[:, None], axis=1)
            assert allowed.all(), "a forbidden action was taken"
        if probe == "camera":
            assert seen.dtype == np.uint8
    results = [algorithm.train() for _ in range(2)]
    algorithm.stop()
    losses = [values["total_loss"] for name, values in results[-1]["learners"].items() if name != "__all_modules__"]
    assert len(losses) == len(runner.policy_map.modules)
    assert np.isfinite(losses).all()


def test_what_begins_anew_does_not_play_its_first_episodes_again(tiny):
    """A clone, and a trial whose world cannot be saved, go on with the steps counted and other episodes."""
    ours, _, _ = runners(tiny)
    first = ours.sample(num_timesteps=20)[0].observations.data[0]
    state = ours.get_rollout_state()
    ours.set_rollout_state(state, go_on=False)
    again = ours.sample(num_timesteps=20)[0].observations.data[0]
    assert not np.array_equal(first, again)
    ours.set_rollout_state(state, go_on=False)
    assert np.array_equal(again, ours.sample(num_timesteps=20)[0].observations.data[0]), "but it is reproducible"
