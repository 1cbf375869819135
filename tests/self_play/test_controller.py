"""Self-play inside a trial: what is frozen stays frozen, a resumed trial goes on bit by bit, a clone takes the pool."""

import numpy as np
import pytest
import torch
from probes import learner_of

from marl_tune.config.compose import compose
from marl_tune.config.schema.search import PopulationConfig
from marl_tune.evaluation.play import evaluate_checkpoint
from marl_tune.results.run_folder import RunFolder
from marl_tune.results.text_files import read_csv, read_json
from marl_tune.sampling.games import Games, games_of
from marl_tune.self_play.pool import UNTRAINED
from marl_tune.self_play.shared_pool import SharedPool
from marl_tune.sweep.in_process_trial import InProcess
from marl_tune.sweep.run import run
from marl_tune.sweep.tune_driver import shares_pool

TINY = (
    *("logger=csv", "module.hidden_dims=[16]", "cluster.num_envs_per_env_runner=8"),
    *("algorithm.train_batch_size=128", "algorithm.minibatch_size=64", "algorithm.num_epochs=1"),
)
EAGER = ("sharing.snapshot.every=1", "sharing.pool_size=3")


@pytest.fixture(scope="module")
def composed():
    """Tiny sweeps, composed once: `composed("sharing=league")`."""
    known = {}

    def make(*words):
        if words not in known:
            known[words] = compose(["+experiment=tictactoe_self_play", *TINY, *words])[0]
        return known[words]

    return make


@pytest.fixture
def lone(composed):
    """Makes trials in this process: `lone("sharing.mirror=0", number=1)`; stopped after the test."""
    made = []

    def make(*words, number=0, pool=None):
        one = InProcess(composed(*words), f"test_{number:05d}")
        one.shared_pool = pool
        made.append(one)
        return one

    yield make
    for one in made:
        one.stop()


def self_play_of(trial):
    return trial.followers["self_play"].self_play


def weights(trial, module_id):
    return {k: v.clone() for k, v in learner_of(trial).module[module_id].state_dict().items()}


def acting(trial, module_id):
    """What the runner's module acts by: it is never sent the value function."""
    state = trial.algorithm.env_runner.module[module_id].state_dict()
    return {name: value for name, value in state.items() if not name.startswith(("value_head", "critic_encoder"))}


def equal(a, b):
    return all(torch.equal(b[k], a[k]) for k in (a.keys() & b.keys()))


def test_two_iterations_and_what_they_report(lone):
    one = lone(*EAGER)
    first = one.train()
    assert first["agent_steps"] >= 120, "both sides' decisions count"
    assert first["self_play"].keys() == {"elo", "win_rate", "draw_rate", "game_length", "snapshots"}
    assert first["self_play"]["snapshots"] == 1
    assert 5 <= first["self_play"]["game_length"] <= 9
    assert set(first["learners"]) == {"main"}
    assert first["learners"]["main"]["num_module_steps_trained"] < first["agent_steps"]
    second = one.train()
    (table,) = second["self_play_table"]
    assert table["players"] == ["main", UNTRAINED, "test_00000.main.000001", "test_00000.main.000002"]
    assert table["elo"][1] == 0.0
    assert table["win_rates"][0][0] is None


def test_self_play_is_handed_the_games_of_each_runner(lone, monkeypatch):
    one, heard = lone(), []
    one.train()
    play_on = self_play_of(one).play_on

    def noted(games, *rest):
        heard.extend(games)
        return play_on(games, *rest)

    monkeypatch.setattr(self_play_of(one), "play_on", noted)
    one.train()
    (games,) = heard
    assert isinstance(games, Games)
    assert 0 < len(games.lengths) == len(games.players)


def test_copies_are_frozen_in_the_learner_and_in_the_runner(lone):
    one = lone(*EAGER)
    one.train()
    learner = learner_of(one)
    copy, anchor, main = (weights(one, m) for m in ("opponent_1", "opponent_0", "main"))
    assert equal(copy, main)
    assert equal(copy, acting(one, "opponent_1")), "the runner has the copy too"
    assert equal(anchor, acting(one, "opponent_0"))
    assert set(learner._module_optimizers) == {"main"}
    assert {m for m, part in learner.module.items() if any(p.requires_grad for p in part.parameters())} == {"main"}
    one.train()
    assert equal(copy, weights(one, "opponent_1"))
    assert equal(anchor, weights(one, "opponent_0"))
    assert not equal(main, weights(one, "main"))
    assert {m for m, part in learner.module.items() if any(p.grad is not None for p in part.parameters())} == {"main"}


def test_opponents_experience_never_leaves_the_runner(lone):
    one = lone("sharing.mirror=0")
    one.train()
    runner = one.algorithm.env_runner
    pieces = runner.sample()
    assert {piece.module_id for piece in pieces} == {"main"}
    assert {piece.agent_id for piece in pieces} == {"player_1", "player_2"}, "main plays both sides"
    episodes = {}
    for piece in pieces:
        episodes.setdefault(piece.multi_agent_episode_id, set()).add(piece.agent_id)
    assert all(len(agents) == 1 for agents in episodes.values())
    mirror = lone("sharing.mirror=1")
    mirror.train()
    both = {}
    for piece in mirror.algorithm.env_runner.sample() + mirror.algorithm.env_runner.sample():
        both.setdefault(piece.multi_agent_episode_id, set()).add(piece.agent_id)
    assert max(len(agents) for agents in both.values()) == 2, "of a game against itself it learns from both"


def test_a_game_counts_for_nobody_when_its_opponent_is_replaced(lone):
    one = lone("sharing.mirror=0")
    one.train()
    runner = one.algorithm.env_runner
    runner.get_metrics()
    runner.sample(num_timesteps=24)
    runner.rollout.finished.clear()
    slot = {"opponent_0": {name: value.numpy() for name, value in weights(one, "opponent_0").items()}}
    runner.set_matches(runner.policy_map.matchmaker.table, slot)
    runner.sample()
    records = runner.rollout.finished
    first = {record.copy: record for record in reversed(records)}
    assert [record.copy for record in records if not record.modules] == [r.copy for r in records if r is first[r.copy]]
    assert len(games_of(records, runner.policy_map)) == len(records) - 8


def test_weights_of_frozen_modules_are_not_sent_every_iteration(lone, monkeypatch):
    one = lone(*EAGER)
    one.train()
    sent = []
    whole = type(one.algorithm.env_runner_group).sync_weights
    monkeypatch.setattr(
        type(one.algorithm.env_runner_group),
        "sync_weights",
        lambda self, *, policies, **kwargs: (sent.append(set(policies)), whole(self, policies=policies, **kwargs)),
    )
    one.train()
    assert sent == [{"main"}]


def test_a_paused_trial_goes_on_exactly(lone, tmp_path):
    words = ("sharing.snapshot.every=2", "sharing.pool_size=3")
    one = lone(*words)
    for _ in range(3):
        one.train()
    saved = one.save(str(tmp_path / "pause"))
    expected = [one.train() for _ in range(3)]
    after, pool = weights(one, "main"), self_play_of(one).get_state()
    again = lone(*words)
    again.restore(saved)
    results = [again.train() for _ in range(3)]
    for theirs, ours in zip(expected, results, strict=True):
        assert theirs["self_play"] == ours["self_play"]
        assert theirs["self_play_table"] == ours["self_play_table"]
        assert theirs["learners"]["main"]["policy_loss"] == ours["learners"]["main"]["policy_loss"]
    assert equal(after, weights(again, "main"))
    np.testing.assert_equal(pool, self_play_of(again).get_state())
    for slot in ("opponent_0", "opponent_1", "opponent_2"):
        assert equal(weights(one, slot), weights(again, slot))
        assert equal(weights(again, slot), acting(again, slot))


def test_a_clone_takes_the_donors_rating_and_copies(lone, tmp_path):
    donor, clone = lone(*EAGER, number=0), lone(*EAGER, number=1)
    for _ in range(3):
        donor.train()
    clone.train()
    donor.save(str(tmp_path / "donor"))
    clone.reset({"algorithm.lr": 5e-3})
    clone.restore(str(tmp_path / "donor"))
    assert self_play_of(clone).pool.metrics() == self_play_of(donor).pool.metrics()
    tables = [each.algorithm.env_runner.policy_map.matchmaker.table for each in (clone, donor)]
    assert tables[0] == tables[1]
    for slot in ("main", "opponent_0", "opponent_1"):
        assert equal(weights(clone, slot), weights(donor, slot))
        assert equal(weights(clone, slot), acting(clone, slot))
    before = self_play_of(donor).pool.first.elo
    assert abs(clone.train()["self_play"]["elo"] - before) < 200, "it goes on from there"


def test_a_population_shares_its_copies_on_one_scale(lone, tmp_path):
    pool = SharedPool(tmp_path / "pool")
    trials = [lone(*EAGER, number=number, pool=pool) for number in range(2)]
    for _ in range(4):
        for one in trials:
            one.train()
    assert equal(weights(trials[0], "opponent_0"), weights(trials[1], "opponent_0")), "one untrained policy for all"
    names = {path.stem for path in (tmp_path / "pool").glob("*.pt")}
    assert len(names) == 8
    assert not [path for path in (tmp_path / "pool").iterdir() if path.name.startswith(".")]
    held = [p for one in trials for p in self_play_of(one).pool.slots.values() if p.name != UNTRAINED]
    assert {p.name for p in held} <= names
    owners = [{p.name.split(".")[0] for p in self_play_of(one).pool.slots.values()} - {UNTRAINED} for one in trials]
    assert any(len(of_one) == 2 for of_one in owners) or owners[0] != {"test_00000"}, "copies of the other trial"
    ratings = {}
    for player in held:
        assert ratings.setdefault(player.name, player.elo) == player.elo, "a copy has one rating everywhere"


def test_a_copy_of_lost_time_is_no_harm(lone, tmp_path):
    """Killed after it had published: it goes on from the checkpoint, and publishes the very same copy again."""
    pool = SharedPool(tmp_path / "pool")
    one = lone(*EAGER, pool=pool)
    one.train()
    saved = one.save(str(tmp_path / "here"))
    one.train()
    before = sorted(path.name for path in (tmp_path / "pool").iterdir())
    again = lone(*EAGER, pool=pool)
    again.restore(saved)
    again.train()
    assert sorted(path.name for path in (tmp_path / "pool").iterdir()) == before


def test_choose_takes_the_newest_of_a_trial_that_is_not_known(tmp_path):
    pool, rng = SharedPool(tmp_path), np.random.default_rng(0)
    assert pool.choose("main", [], rng) is None
    for trial, iteration in (("a_1", 1), ("a_1", 12), ("b_2", 3)):
        pool.publish(trial, "main", iteration, float(iteration), {"w": np.full(2, iteration)})
    pool.publish("b_2", "league_exploiter_0", 9, 9.0, {"w": np.zeros(2)})
    found = {pool.choose("main", [], rng).iteration for _ in range(20)}
    assert found == {12, 3}
    newest = next(path.stem for path in tmp_path.glob("a_1.main.000012.*"))
    copy = pool.choose("main", [newest], rng)
    assert (copy.name.split(".")[0], copy.elo, copy.weights["w"].tolist()) == ("b_2", 3.0, [3, 3])


def test_only_a_population_under_self_play_shares(composed):
    alone = composed()
    words = ("search=pbt", "search.metric=self_play/elo", "+space.algorithm.lr.choice=[1]")
    population = composed(*words)
    assert isinstance(population.search, PopulationConfig)
    assert (shares_pool(alone), shares_pool(population)) == (False, True)


def test_a_league_trains_all_learners_and_resets_exploiters(lone):
    one = lone("sharing=league", "sharing.freeze.min_steps=200", "sharing.freeze.max_steps=200", "sharing.pool_size=5")
    assert one.train()["self_play"]["snapshots"] == 0
    first = one.train()
    learners = {"main_0", "main_exploiter_0", "league_exploiter_0"}
    assert set(first["learners"]) == learners == set(first["self_play"]["elo_of"])
    assert first["self_play"]["snapshots"] == 3
    anchor = weights(one, "opponent_0")
    assert equal(weights(one, "main_exploiter_0"), anchor), "it begins anew"
    assert equal(acting(one, "main_exploiter_0"), anchor)
    ((_, adam),) = learner_of(one).get_optimizers_for_module("main_exploiter_0")
    assert len(adam.state) == 0
    assert not equal(weights(one, "main_0"), anchor)
    second = one.train()
    assert second["learners"].keys() == learners
    assert len(adam.state) > 0


def test_a_league_learns_from_the_game_of_whose_turn_it_is(lone):
    one = lone("sharing=league")
    one.train()
    runner = one.algorithm.env_runner
    assert runner.policy_map.matchmaker.table["main_exploiter_0"] == {"main_0": 1.0}
    modules = {}
    for _ in range(3):
        for piece in runner.sample():
            modules.setdefault(piece.multi_agent_episode_id, set()).add(piece.module_id)
    assert {len(of_one) for of_one in modules.values()} == {1}, "of main_0, whom an exploiter plays, nothing is kept"
    assert set().union(*modules.values()) == {"main_0", "main_exploiter_0", "league_exploiter_0"}


def test_what_is_evaluated_is_main_on_all_sides(lone, tmp_path):
    one = lone("sharing=league")
    one.train()
    one.save(str(tmp_path / "here"))
    played = evaluate_checkpoint(tmp_path / "here", range(4), explore=True)
    assert list(played.returns) == ["player_1", "player_2"]
    assert played.sum_team == pytest.approx(np.zeros(4))


@pytest.mark.slow
@pytest.mark.usefixtures("ray_session")
def test_a_population_of_processes(tmp_path):
    """The command's own way: PBT by Elo, copies shared through the run's folder, and the selection at the end."""
    words = ("search=pbt", "search.metric=self_play/elo", "search.num_samples=2", "search.perturbation_interval=2")
    stop = ("stop.agent_steps=null", "stop.iterations=5", "checkpoint.frequency=1", "logger.progress=off")
    space = "+space.algorithm.lr.loguniform=[1e-4,1e-2]"
    judges = ("selection.top_k=2", "selection.episodes=8", "selection.bootstrap=100", "cluster.num_cpus=2")
    place = f"results_dir={tmp_path}"
    sweep = compose(["+experiment=tictactoe_self_play", *TINY, *EAGER, *words, *stop, *judges, space, place])[0]
    assert run(sweep, []) == 0
    (path,) = (tmp_path / "tictactoe_self_play").iterdir()
    folder = RunFolder(path)
    trials = {trial.id for trial in folder.read_trials()}
    assert {name.stem.split(".")[0] for name in folder.pool.glob("*.pt")} == trials
    assert all(row["self_play/elo"] for row in read_csv(folder.progress))
    assert set(read_json(folder.self_play)) == trials
    assert read_json(folder.summary)["best"]["evaluation"]["mean_result"] >= 0.5
