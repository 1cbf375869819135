"""Agents that talk to each other stay together, from sampling to the loss; and what would part them is refused."""

import numpy as np
import pytest
import torch
from probes import Unwrapped, learner_of, sampled, targets_of
from ray.rllib.utils.minibatch_utils import ShardEpisodesIterator

from marl_tune.__main__ import main
from marl_tune.algorithms.ppo_loss import PpoSettings, ppo_loss
from marl_tune.algorithms.rllib_config import algorithm_config
from marl_tune.config.compose import compose
from marl_tune.config.errors import ConfigError
from marl_tune.learning.minibatches import minibatches, num_agent_steps
from marl_tune.learning.team_rows import TeamRows
from marl_tune.learning.train_batch import BatchSettings, EpisodesToTrainBatch
from marl_tune.modules.communication import MESSAGE_NOISE
from marl_tune.sampling.rollout import Rollout
from marl_tune.sampling.team_order import TeamOrder
from marl_tune.sharing.policy_map import PolicyMap
from marl_tune.validation.validate import validate

TALKING = "module=communication"
DISCRETE = ("module.message_type=discrete", "module.comm_channels=2", "module.message_dim=3")
KINDS = {"continuous": (), "discrete": DISCRETE, "rounds": (*DISCRETE, "module.comm_rounds=2", "module.comm_range=0.4")}


def learned(tiny, *words, fragments=(7, 9)):
    """A batch of the second fragment of 3 copies of 4 ants in episodes of 20 steps; module, pieces, recorded world."""
    pieces, world, rollout = sampled(tiny(TALKING, *words), list(fragments))
    module = rollout.policies.modules["shared"]
    made = EpisodesToTrainBatch(lambda _: BatchSettings(gamma=0.97, lambda_=0.9))
    batch = made(rl_module={"shared": Unwrapped(module)}, episodes=pieces[-1], batch={})["shared"]
    return batch, module, pieces[-1], world


@pytest.mark.parametrize("kind", KINDS)
def test_training_repeats_what_sampling_did(tiny, kind):
    batch, module, _, _ = learned(tiny, *KINDS[kind])
    with torch.no_grad():
        inputs = module._forward_train(batch)["action_dist_inputs"]
    logp = module.get_train_action_dist_cls().from_logits(inputs).logp(batch["actions"])
    assert inputs.shape == (27, 4, 5)
    assert torch.allclose(inputs, batch["action_dist_inputs"], atol=1e-6)
    assert torch.allclose(logp, batch["action_logp"], atol=1e-6)
    assert (MESSAGE_NOISE in batch) == (kind != "continuous")


def test_a_row_is_the_team_of_one_copy_and_step(tiny):
    """Every row of a batch that spans the ends of episodes is what the world showed to all ants of a copy at once."""
    batch, _, _, world = learned(tiny, fragments=(7, 33))
    assert batch["obs"].shape == (99, 4, 9)
    assert batch["loss_mask"].shape == (99, 4)
    shown = {}
    for transition in (t for episodes in world.episodes for episode in episodes for t in episode):
        key = transition["observation"]["ants"].tobytes()
        shown[key] = transition["action"]["ants"], transition["reward"]["ants"]
    for seen, actions, rewards in zip(batch["obs"], batch["actions"], batch["rewards"], strict=True):
        done, paid = shown.pop(seen.numpy().tobytes())
        assert np.array_equal(actions.numpy(), done)
        assert np.array_equal(rewards.numpy(), paid)
    assert len(shown) == 7 * 3, "the fragment before"


@pytest.mark.parametrize("kind", ["continuous", "discrete"])
def test_targets_and_advantages_are_of_the_teams_values(tiny, kind):
    """Values of each segment by hand, its last observation with it; there nobody has drawn a message yet."""
    batch, module, pieces, _ = learned(tiny, *KINDS[kind], fragments=(7, 33))
    targets, advantages, segments = [], [], {}
    for piece in pieces:
        segments.setdefault((piece.multi_agent_episode_id, piece.t_started), []).append(piece)
    for team in segments.values():
        seen = {"obs": torch.from_numpy(np.stack([p.observations.data for p in team], 1))}
        if kind == "discrete":
            noise = np.stack([p.extra_model_outputs[MESSAGE_NOISE].data for p in team], 1)
            seen[MESSAGE_NOISE] = torch.from_numpy(np.concatenate([noise, np.zeros_like(noise[:1])]))
        with torch.no_grad():
            values = module.compute_values(seen).numpy()  # (T + 1, 4)
        of_team = [targets_of(piece, own) for own, piece in zip(values.T, team, strict=True)]
        targets.append(np.stack(of_team, 1))
        advantages.append(np.stack(of_team, 1) - values[:-1])
    targets, advantages = np.concatenate(targets), np.concatenate(advantages)
    assert np.allclose(batch["value_targets"].numpy(), targets, atol=1e-5)
    standardised = (advantages - advantages.mean()) / advantages.std()
    assert np.allclose(batch["advantages"].numpy(), standardised, atol=1e-4)


def test_minibatches_keep_teams_whole_and_count_agents(tiny):
    batch, module, _, _ = learned(tiny, *DISCRETE)
    assert int(num_agent_steps(batch)) == 27 * 4
    with torch.no_grad():
        whole = module._forward_train(batch)["action_dist_inputs"]
        known = {row.numpy().tobytes(): inputs for row, inputs in zip(batch["obs"], whole, strict=True)}
        parts = [part["m"] for part, _ in minibatches({"m": batch}, 2, 12, shuffle=True)]
        assert len(parts) == 2 * 9
        for part in parts:
            assert part["obs"].shape == (3, 4, 9)
            inputs = module._forward_train(part)["action_dist_inputs"]
            for row, own in zip(part["obs"], inputs, strict=True):
                assert torch.allclose(own, known[row.numpy().tobytes()], atol=1e-6)


def test_the_loss_of_teams_is_that_of_their_rows(tiny):
    batch, module, _, _ = learned(tiny)
    out = module._forward_train(batch)
    values = module.compute_values(batch, out["embeddings"])
    settings = PpoSettings(0.2, 0.01, 0.5, float("inf"), 0.2)
    flat = {name: batch[name].flatten(0, 1) for name in batch if name not in ("obs", "loss_mask")}
    inputs, dist = out["action_dist_inputs"] + 0.1, module.get_train_action_dist_cls()
    of_teams, stats = ppo_loss(inputs, values, batch, dist, settings, True)
    of_rows, expected = ppo_loss(inputs.flatten(0, 1), values.flatten(), flat, dist, settings, True)
    assert of_teams.item() == pytest.approx(of_rows.item(), abs=1e-6)
    assert {k: v.item() for k, v in stats.items()} == pytest.approx(
        {k: v.item() for k, v in expected.items()}, abs=1e-5
    )


def test_one_agents_loss_trains_what_the_others_said(tiny):
    """The gradient of ant 0's log p into what ant 2 saw; none into the same ant's in another row."""
    batch, module, _, _ = learned(tiny, *DISCRETE)
    batch["obs"].requires_grad_()
    inputs = module._forward_train(batch)["action_dist_inputs"]
    logp = module.get_train_action_dist_cls().from_logits(inputs).logp(batch["actions"])
    (gradient,) = torch.autograd.grad(logp[5, 0], batch["obs"])
    assert gradient[5, 2].abs().max() > 0
    assert not gradient[:5].any()
    assert not gradient[6:].any()


def test_the_order_of_pieces_does_not_matter(tiny):
    batch, module, pieces, _ = learned(tiny)
    made = EpisodesToTrainBatch(lambda _: BatchSettings(gamma=0.97, lambda_=0.9))
    other = made(rl_module={"shared": Unwrapped(module)}, episodes=pieces[::-1], batch={})["shared"]
    same = {row.sort(0).values.numpy().tobytes() for row in batch["obs"]}
    assert same == {row.sort(0).values.numpy().tobytes() for row in other["obs"]}


def test_a_torn_team_is_refused(tiny):
    _, module, pieces, _ = learned(tiny)
    with pytest.raises(ValueError, match=r"a team of 4 agents that talk to each other was torn: found \[3\]"):
        TeamRows(module, pieces[1:], "cpu")
    short = pieces[0][:3]
    short.multi_agent_episode_id, short.t_started = pieces[0].multi_agent_episode_id, pieces[0].t_started
    with pytest.raises(ValueError, match="must act in the same steps of an episode"):
        TeamRows(module, [short, *pieces[1:]], "cpu")


def test_rllib_tears_teams_when_it_shares_episodes_out(tiny):
    """Why several learners are refused; should this fail, they need not be any more."""
    _, module, pieces, _ = learned(tiny)
    shards = list(ShardEpisodesIterator(list(pieces), 2))
    with pytest.raises(ValueError, match="agents that talk to each other"):
        [TeamRows(module, shard, "cpu") for shard in shards]


def test_rows_of_several_groups_are_ordered_by_copy():
    """Group by group, copy by copy: two agents of one group and one of another in three copies."""
    copies = np.array([0, 0, 1, 1, 2, 2, 0, 1, 2])
    order, rows = TeamOrder("m", copies, 3), torch.arange(9)
    assert order.to_teams(rows).tolist() == [[0, 1, 6], [2, 3, 7], [4, 5, 8]]
    assert torch.equal(order.to_rows(order.to_teams(rows)), rows)
    one_group = TeamOrder("m", np.array([0, 0, 1, 1]), 2)
    assert one_group.to_teams(torch.arange(4)).tolist() == [[0, 1], [2, 3]]
    with pytest.raises(ValueError, match="module m must act for the same 2 agents in every copy"):
        TeamOrder("m", np.array([0, 0, 1]), 2)


def test_modules_that_are_drawn_anew_cannot_talk(tiny):
    def drawn(world):
        agents = world.groups[0].agents
        chosen = dict.fromkeys(agents, "shared")
        return PolicyMap(world.groups, dict.fromkeys(agents, ("shared",)), lambda rng, turn: chosen)

    with pytest.raises(ValueError, match="module shared talks: it needs the same agents in every episode"):
        sampled(tiny(TALKING), [3], policy_map=drawn)


def test_agents_that_wait_cannot_talk(tiny):
    _, world, rollout = sampled(tiny(TALKING), [3])
    acting = {"ants": np.array([[True, True, False, True]] * 3)}
    with pytest.raises(ValueError, match="all of its agents must act in every step"):
        rollout.policies.act(world.seen, True, acting)
    assert isinstance(rollout, Rollout)


# Trials.


@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize("kind", ["continuous", "discrete"])
def test_a_paused_trial_goes_on_exactly(trial, tmp_path, kind):
    one = trial(None, TALKING, *KINDS[kind])
    one.train()
    one.save(str(tmp_path / "pause"))
    expected = one.train()
    after = {k: v.clone() for k, v in learner_of(one).module["shared"].state_dict().items()}
    one.reset({"module.comm_cut": True})
    one.train()
    one.reset({})
    one.restore(str(tmp_path / "pause"))
    again = one.train()
    assert again["learners"]["shared"]["policy_loss"] == expected["learners"]["shared"]["policy_loss"]
    assert all(torch.equal(after[k], v) for k, v in learner_of(one).module["shared"].state_dict().items())
    assert again["agent_steps"] == expected["agent_steps"] == 800


@pytest.mark.usefixtures("ray_session")
def test_a_clone_listens_by_its_own_settings_where_it_acts_and_learns(trial, tmp_path):
    donor, clone = trial(None, TALKING, number=0), trial(None, TALKING, number=1)
    for one in (donor, clone):
        one.train()
    donor.save(str(tmp_path / "donor"))
    living = clone.algorithm
    clone.reset({"module.comm_cut": True, "module.comm_range": 0.5, "module.gumbel_temperature": 0.3})
    clone.restore(str(tmp_path / "donor"))
    assert clone.algorithm is living
    for module in (learner_of(clone).module["shared"], living.env_runner_group.local_env_runner.module["shared"]):
        config = module.model_config
        assert (config["comm_cut"], config["comm_range"], config["gumbel_temperature"]) == (True, 0.5, 0.3)
    clone.train()


@pytest.mark.slow
@pytest.mark.usefixtures("ray_session")
def test_agents_learn_to_tell_what_only_they_see():
    """The experiment's first iterations: all of 20 with a channel, chance, which is 5, without."""
    returns = {}
    for cut in (False, True):
        sweep = compose(["+experiment=signal", f"module.comm_cut={cut}"])[0]
        algorithm = algorithm_config(sweep).build_algo()
        for _ in range(10):
            result = algorithm.train()
        algorithm.stop()
        returns[cut] = result["env_runners"]["episode_return_mean"] / 4
    assert returns[False] > 18
    assert returns[True] < 6


# What is refused.

COLONY = ["+experiment=debug", TALKING]
TOGETHER = "sharing must be parameter_sharing, roles or shared_critic under module=communication"
SPIES = [
    "+sharing.roles.spies={agents:[agent],module:{comm_range:1.0}}",
    "+sharing.roles.rest={agents:['*'],module:{}}",
]
REFUSED = [
    ([*COLONY, "cluster.rollout=rllib"], "cluster.rollout must be batched under module=communication"),
    ([*COLONY, "cluster.num_learners=2"], "cluster.num_learners must be at most 1 under module=communication"),
    ([*COLONY, "sharing=independent"], f"{TOGETHER}: messages are learned by those who share a module"),
    ([*COLONY, "sharing=hierarchical"], f"{TOGETHER}: managers wait between their decisions"),
    (
        ["env=pricing", TALKING, "sharing=self_play", "search.metric=self_play/elo"],
        f"{TOGETHER}: whom a module acts for is drawn anew for every game",
    ),
    (
        [*COLONY, "env.n_agents=6", "sharing=roles", "+sharing.roles={a:{agents:['*_0']},b:{agents:['*']}}"],
        "sharing must give the agents of group ants one module under module=communication",
    ),
    ([*COLONY, "env.n_agents=1"], "env must have two agents with one module under module=communication"),
    ([*COLONY, "algorithm.minibatch_size=3"], "algorithm.minibatch_size must hold at least one step of the 4 agents"),
    (["env=classic/tictactoe_v3", TALKING], "env must be a world in which all agents act in all steps"),
    (["env=signal", TALKING, "module.comm_range=1"], "module.comm_range must be null where the observations of shared"),
    (["env=sisl/pursuit", TALKING, "module.comm_range=1"], "module.comm_range must be null where"),
    (
        [
            "env=mpe/simple_adversary",
            TALKING,
            "sharing=roles",
            *SPIES,
        ],
        "sharing.roles.spies.module.comm_range must be null where the observations of spies do not hold",
    ),
    (
        [TALKING, "search=random", "+space={module.comm_range:{uniform:[-1,1]}}"],
        "module.comm_range must be finite and at least 0, or null, got -1.0, reached by space.module.comm_range",
    ),
]


@pytest.mark.parametrize(("words", "message"), REFUSED, ids=[" ".join(words) for words, _ in REFUSED])
def test_what_would_part_a_team_is_refused(words, message):
    with pytest.raises(ConfigError) as error:
        validate(compose(words)[0])
    assert message in str(error.value)


def test_refused_on_the_command_line(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main([*COLONY, "cluster.num_learners=2"]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith(
        "error: cluster.num_learners must be at most 1 under module=communication: RLlib cuts"
    )
    assert printed.err.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "words",
    [
        ["env=mpe/simple_tag"],  # the hunters talk among each other
        ["env=mpe/simple_tag", "module.comm_range=0.5"],
        [
            "env=bio_grid",
            "module.comm_range=0.5",
            "sharing=roles",
            "+sharing.roles.scouts.agents=['*']",
        ],
        ["env=vmas"],
    ],
)
def test_what_keeps_teams_whole_is_accepted(words):
    validate(compose([*words, TALKING])[0])
