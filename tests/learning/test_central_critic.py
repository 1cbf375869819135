"""The critic that all agents share: what is stored for it, what it says of a batch, what it learns from."""

import pickle

import numpy as np
import pytest
import torch
from probes import Unwrapped, sampled
from ray.rllib.core.columns import Columns
from test_train_batch import by_definition

from marl_tune.algorithms.rllib_config import algorithm_config
from marl_tune.envs.ant_colony import AntColony
from marl_tune.learning.central_critic import CriticSettings, normalise_targets
from marl_tune.learning.central_critic_loss import critic_loss
from marl_tune.learning.minibatches import minibatches
from marl_tune.learning.train_batch import BatchSettings, EpisodesToTrainBatch
from marl_tune.modules.central_critic import CentralCritic
from marl_tune.modules.parts.running_moments import DECAY, RunningMoments
from marl_tune.sampling.global_states import STATE_ROWS
from marl_tune.sharing.build_world import build_world
from marl_tune.sharing.module_specs import build_policy_map, critic_specs

SHARED = "sharing=shared_critic"


def with_states(sweep, fragments, copies=3):
    """As `probes.sampled`, with states recorded; and the critic of the sweep."""
    pieces, world, rollout = sampled(sweep, fragments, copies, with_state=True)
    torch.manual_seed(1)
    critic = critic_specs(sweep, world)["critic"].build()
    torch.nn.init.normal_(critic.value_head.weight)
    return pieces, rollout, critic


def batch_of(rollout, critic, pieces, **settings):
    modules = {m: Unwrapped(module) for m, module in rollout.policies.modules.items()} | {"critic": Unwrapped(critic)}
    made = EpisodesToTrainBatch(lambda _: BatchSettings(gamma=0.97, lambda_=0.9, **settings))
    return made(rl_module=modules, episodes=pieces, batch={})


# -- what is stored ---------------------------------------------------------------------------------------------------


def test_states_are_those_of_the_observations(tiny):
    """In the colony the state is what all ants see: each piece's rows hold its own observations in its column."""
    fragments, _, _ = with_states(tiny(SHARED), [7] * 6)
    pieces = [piece for fragment in fragments for piece in fragment]
    assert any(piece.is_truncated for piece in pieces)
    for piece in pieces:
        rows, column = piece.custom_data[STATE_ROWS], int(piece.agent_id.removeprefix("ant_"))
        states = rows.array[rows.index]
        assert len(states) == len(piece) + 1
        assert np.array_equal(states.reshape(len(states), 4, 9)[:, column], piece.observations.data)


def test_the_state_is_stored_once_a_step_and_not_once_an_agent(tiny):
    sweep = tiny(SHARED, "env.n_agents=20")
    (plain,), _, _ = sampled(sweep, [10])
    (pieces,), _, _ = sampled(sweep, [10], with_state=True)
    steps, state = 3 * (10 + 1), 20 * 9 * 4
    more = len(pickle.dumps(pieces)) - len(pickle.dumps(plain))
    overhead = 200 * len(pieces)  # references and the indices
    assert steps * state <= more < steps * state + overhead
    assert overhead < 19 * steps * state / 20, "would not tell once from twenty times"
    assert len({id(piece.custom_data[STATE_ROWS].array) for piece in pieces}) == 3, "one array a copy"


def test_ray_sends_the_state_once(tiny, ray_session):
    import ray

    (pieces,), _, _ = sampled(tiny(SHARED), [10], with_state=True)
    received = ray.get(ray.put(pieces))
    arrays = [piece.custom_data[STATE_ROWS].array for piece in received]
    assert len({id(array) for array in arrays}) == 3
    assert all(np.array_equal(a, b.custom_data[STATE_ROWS].array) for a, b in zip(arrays, pieces, strict=True))


def test_who_acts_neither_sees_nor_needs_the_state(tiny, monkeypatch):
    """The same actions from the same seeds whatever the state is, and where there is none at all."""
    plain, _, _ = sampled(tiny(SHARED), [30])
    monkeypatch.setattr(AntColony, "state", lambda self, observations: np.random.rand(self.num_envs, 36))
    noise, _, rollout = sampled(tiny(SHARED), [30], with_state=True)
    assert len(plain[0]) == len(noise[0])
    for a, b in zip(plain[0], noise[0], strict=True):
        assert np.array_equal(a.observations.data, b.observations.data)
    assert not any("value" in name or "critic" in name for name in rollout.policies.modules["shared"].state_dict())


# -- what it says of a batch ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", ["mlp", "gru"])
@pytest.mark.parametrize("actors", ["parameter_sharing", "independent"])
def test_values_targets_and_advantages_are_by_definition(tiny, module, actors):
    """Piece by piece and state by state, against the batch that is made of all at once."""
    words = [f"module={module}", *(["module.max_seq_len=4"] if module == "gru" else [])]
    fragments, rollout, critic = with_states(tiny(SHARED, f"sharing.actors={actors}", *words), [7, 9, 11])
    pieces = fragments[2]
    batches = batch_of(rollout, critic, pieces, reward_scale=0.5)
    targets, states = {}, {}
    for module_id in rollout.policies.policy_map.modules:
        advantages = []
        for piece in (p for p in pieces if p.module_id == module_id):
            rows, column = piece.custom_data[STATE_ROWS], int(piece.agent_id.removeprefix("ant_"))
            with torch.no_grad():
                seen = [torch.from_numpy(rows.array[i])[None] for i in rows.index]
                values = [float(critic.compute_values({Columns.OBS: state})[0, column]) for state in seen]
            advantage = by_definition(
                0.5 * piece.rewards.data, values[:-1], values[-1], piece.is_terminated, gamma=0.97, lambda_=0.9
            )
            advantages += advantage
            for i, state, a, v in zip(rows.index, seen, advantage, values, strict=False):
                targets[id(rows.array), int(i), column] = a + v
                states[id(rows.array), int(i)] = state[0]
        own = batches[module_id]
        mask = own.get(Columns.LOSS_MASK, torch.ones(own["advantages"].shape, dtype=torch.bool))
        expected = (np.array(advantages) - np.mean(advantages)) / np.std(advantages)
        assert np.allclose(own["advantages"][mask].numpy(), expected, atol=1e-4)
    critics = batches["critic"]
    assert critics[Columns.LOSS_MASK].all()
    assert critics[Columns.OBS].shape == (11 * 3, 36)
    assert int(critics[Columns.LOSS_MASK].sum()) == 11 * 3 * 4
    for number, place in enumerate(states):
        assert torch.equal(critics[Columns.OBS][number], states[place])
        expected = [targets[(*place, column)] for column in range(4)]
        assert np.allclose(critics["value_targets"][number].numpy(), expected, atol=1e-5)


def test_an_agent_that_did_not_act_has_no_target(tiny):
    """Without one ant's pieces, as if it had died: its column is masked, and nobody else's targets move."""
    fragments, rollout, critic = with_states(tiny(SHARED), [9])
    whole = batch_of(rollout, critic, fragments[0])["critic"]
    rest = [p for p in fragments[0] if not (p.agent_id == "ant_2" and p.t_started == 0)]
    batch = batch_of(rollout, critic, rest)["critic"]
    mask = batch[Columns.LOSS_MASK]
    assert mask[:, [0, 1, 3]].all()
    assert not mask[:, 2].any()
    assert torch.equal(batch["value_targets"][mask], whole["value_targets"][mask])
    assert int(mask.sum()) == 9 * 3 * 3, "and gradient steps are counted by who acted"
    assert len(list(minibatches({"critic": batch}, 2, 27, shuffle=True))) == 2 * 3


def test_without_use_critic_nobody_asks_it(tiny):
    fragments, rollout, critic = with_states(tiny(SHARED), [9])
    assert set(batch_of(rollout, critic, fragments[0], use_critic=False)) == {"shared"}


def test_pieces_without_states_are_refused(tiny):
    sweep = tiny(SHARED)
    _, rollout, critic = with_states(sweep, [3])
    (plain,), _, _ = sampled(sweep, [3])
    with pytest.raises(ValueError, match=r"set cluster\.rollout=batched"):
        batch_of(rollout, critic, plain)


# -- what it learns from ----------------------------------------------------------------------------------------------


def slow_loss(outputs, old, targets, mask, delta, clip, limit):
    """Element by element, as in Yu et al.'s `cal_value_loss`, times two."""

    def cost(e):
        if delta is None or abs(e) <= delta:
            return e * e
        return 2 * delta * (abs(e) - delta / 2)

    total, count = 0.0, 0
    for o, p, y, m in zip(outputs.ravel(), old.ravel(), targets.ravel(), mask.ravel(), strict=True):
        if not m:
            continue
        error = cost(o - y)
        if clip is not None:
            error = max(error, cost(p + min(max(o - p, -clip), clip) - y))
        total, count = total + min(error, limit), count + 1
    return total / count


@pytest.mark.parametrize("delta", [None, 0.5, 100.0])
@pytest.mark.parametrize("clip", [None, 0.2])
@pytest.mark.parametrize("limit", [float("inf"), 2.0])
def test_the_loss_is_the_slow_one(delta, clip, limit):
    rng = np.random.default_rng(3)
    outputs, old, targets = rng.normal(size=(3, 40, 3))
    mask = rng.random((40, 3)) < 0.7
    batch = {"value_targets": torch.tensor(targets), "old_outputs": torch.tensor(old), "loss_mask": torch.tensor(mask)}
    settings = CriticSettings(lr=1e-3, normalise_values=False, huber_delta=delta, clip_param=clip)
    loss, stats = critic_loss(torch.tensor(outputs), batch, settings, 0.7, limit, with_stats=True)
    expected = slow_loss(outputs, old, targets, mask, delta, clip, limit)
    assert float(loss) == pytest.approx(0.7 * expected)
    assert float(stats["vf_loss"]) == pytest.approx(expected)
    explained = 1 - np.var((targets - outputs)[mask]) / np.var(targets[mask])
    assert float(stats["vf_explained_var"]) == pytest.approx(max(-1, explained), abs=1e-4)
    assert critic_loss(torch.tensor(outputs), batch, settings, 0.7, limit, with_stats=False)[1] == {}


def test_moments_are_the_debiased_running_ones():
    """Against Yu et al.'s ValueNorm, written out."""
    rng, moments = np.random.default_rng(0), RunningMoments()
    mean = square = weight = 0.0
    assert (float(moments.mean), float(moments.deviation)) == (0.0, 1.0)
    for _ in range(5):
        values = rng.normal(30.0, 4.0, size=50)
        mean = mean * DECAY + values.mean() * (1 - DECAY)
        square = square * DECAY + (values**2).mean() * (1 - DECAY)
        weight = weight * DECAY + (1 - DECAY)
        moments.update(torch.tensor(values.mean()), torch.tensor((values**2).mean()))
    debiased, deviation = mean / weight, np.sqrt(max(square / weight - (mean / weight) ** 2, 1e-2))
    assert float(moments.mean) == pytest.approx(debiased)
    assert float(moments.deviation) == pytest.approx(deviation)
    x = torch.linspace(-5, 5, 11)
    assert torch.allclose(moments.normalise(x), ((x - debiased) / deviation).float())
    assert torch.allclose(moments.denormalise(moments.normalise(x)), x, atol=1e-5)
    flat = RunningMoments()
    flat.update(torch.tensor(2.0), torch.tensor(4.0))
    assert float(flat.deviation) == pytest.approx(0.1), "values that are all alike do not blow up"


@pytest.fixture
def critic(tiny):
    sweep = tiny(SHARED)
    with build_world(sweep, 1) as world:
        one = critic_specs(sweep, world)["critic"].build()
    torch.nn.init.normal_(one.value_head.weight)
    one.moments.update(torch.tensor(7.0), torch.tensor(7.0**2 + 3.0**2))
    return one


def test_values_stay_when_normalisation_is_switched(critic):
    states = torch.rand(5, 36)
    with torch.no_grad():
        plain = critic.compute_values({"obs": states})
        for normalised in (True, True, False, True):
            critic.set_normalised(normalised)
            assert torch.allclose(critic.compute_values({"obs": states}), plain, atol=1e-4)
        outputs = critic._forward_train({"obs": states})["vf_preds"]
    assert torch.allclose(outputs, (plain - 7.0) / 3.0, atol=1e-4)


def test_targets_are_normalised_by_what_acted(critic):
    critic.set_normalised(True)
    batch = {
        "value_targets": torch.tensor([[1.0, 2.0], [3.0, 1000.0]]),
        "loss_mask": torch.tensor([[True, True], [True, False]]),
        "other": 5,
    }
    before = critic.moments.weight.clone()
    learned = normalise_targets(critic, batch, distributed=False)
    assert critic.moments.weight > before
    mean = (7.0 * DECAY + 2.0) / (DECAY + 1)  # two batches of nearly the same weight: 7 and the mean of 1, 2, 3
    assert float(critic.moments.mean) == pytest.approx(mean, rel=1e-4)
    expected = (batch["value_targets"] - mean) / float(critic.moments.deviation)
    assert torch.allclose(learned["value_targets"], expected, atol=1e-4)
    assert learned["other"] == 5


def test_the_critic_acts_for_nobody(critic, tiny):
    config = algorithm_config(tiny(SHARED))
    built = {}
    for acting in (True, False):
        shared = config.rl_module_spec.rl_module_specs["shared"]
        spaces = {"shared": (shared.observation_space, shared.action_space)}
        built[acting] = set(config.get_multi_rl_module_spec(spaces=spaces, inference_only=acting).rl_module_specs)
    assert built == {True: {"shared"}, False: {"shared", "critic"}}
    assert critic.get_state(inference_only=True) == {}
    assert {"value_head.weight", "moments.mean_sum", "normalised"} <= set(critic.get_state())


def test_an_image_as_state_is_read_by_convolutions():
    import gymnasium as gym

    space = gym.spaces.Box(0, 255, (12, 12, 3), np.uint8)
    settings = {"hidden_dims": [8], "activation": "tanh", "agents": ["a", "b"]}
    made = CentralCritic(observation_space=space, action_space=None, learner_only=True, model_config=settings)
    assert hasattr(made.encoder, "convolutions")
    assert made.compute_values({"obs": torch.zeros(5, 12, 12, 3, dtype=torch.uint8)}).shape == (5, 2)


def test_the_name_of_the_critic_is_its_own(tiny):
    from dataclasses import replace

    from marl_tune.config.errors import ConfigError

    sweep = tiny(SHARED)
    with build_world(sweep, 1) as world:
        groups = (replace(world.groups[0], name="critic", agents=("critic", "actor")),)
    world = type("Theatre", (), {"groups": groups})()
    with pytest.raises(ConfigError, match="for itself, got a world with agent 'critic'"):
        build_policy_map(tiny(SHARED, "sharing.actors=independent"), world)
    build_policy_map(sweep, world)  # one module, which is called shared


@pytest.mark.parametrize("shares", [5, 7])
def test_shares_of_several_learners_are_the_whole_batch(tiny, shares):
    """RLlib cuts pieces in two for shares of equal size: the parts have the states and targets of the whole."""
    from ray.rllib.utils.minibatch_utils import ShardEpisodesIterator

    fragments, rollout, critic = with_states(tiny(SHARED), [7, 10])
    pieces = fragments[1]
    owners = {(piece.id_, piece.t_started + t): piece.agent_id for piece in pieces for t in range(len(piece))}
    states, parts = {}, list(ShardEpisodesIterator(pieces, shares, 1))
    assert sum(len(part) for part in parts) > len(pieces), "nothing was cut"
    acted = 0
    for part in parts:
        for piece in part:
            rows = piece.custom_data[STATE_ROWS]
            assert len(rows.index) == len(piece) + 1
            for t, state in enumerate(rows.array[rows.index[:-1]]):
                assert owners.pop((piece.id_, piece.t_started + t)) == piece.agent_id
                states.setdefault((piece.multi_agent_episode_id, piece.t_started + t), state)
                assert np.array_equal(states[piece.multi_agent_episode_id, piece.t_started + t], state)
        acted += int(batch_of(rollout, critic, part)["critic"][Columns.LOSS_MASK].sum())
    assert not owners
    assert acted == sum(map(len, pieces)) == 10 * 3 * 4
