"""The benchmarks measure what they say: equal work for every contestant, judged round by round, under control."""

import json
import os
import subprocess
import sys
import time
import uuid
from pathlib import Path

import psutil
import pytest

from benchmarks import compare, startup
from benchmarks.claims import CLAIMS, Claim, Figure
from benchmarks.contestants import CONTESTANTS, QUICK
from benchmarks.processes import CommandError, run_json
from benchmarks.reference.hand_ppo import HandWrittenPpo
from benchmarks.reference.worlds import parallel_env
from benchmarks.throughput import train
from benchmarks.works import WORKS
from marl_tune.config.trial_budget import fragment_length
from marl_tune.sharing.build_world import build_world

ROOT = Path(__file__).parent.parent
CHOICES = [(work, world) for work in WORKS.values() for world in work.worlds]
IDS = [f"{work.name}-{world}" for work, world in CHOICES]


# -- the works ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "agent_steps", "gradient_steps"), [("W1", 18_000, 48), ("W2", 20_000, 40)])
def test_arithmetic_of_the_works(name, agent_steps, gradient_steps):
    work = WORKS[name]
    assert (work.agent_steps, work.gradient_steps) == (agent_steps, gradient_steps)
    assert work.agent_steps % work.minibatch_size == 0
    with pytest.raises(ValueError, match=f"divide the {work.env_steps} env steps of {name}, got 7"):
        work.fragment(7)


@pytest.mark.parametrize(("work", "world"), CHOICES, ids=IDS)
def test_a_works_sweep_samples_and_learns_as_much_as_the_work_says(work, world):
    _, copies = work.setting(world)
    sweep = work.sweep(world, copies, threads=2)
    rules = sweep.algorithm
    assert fragment_length(sweep, work.agents) * copies == work.env_steps
    assert rules.num_epochs * rules.train_batch_size / rules.minibatch_size == work.gradient_steps
    assert (rules.lr, rules.gamma, rules.lambda_, rules.clip_param) == (3e-4, 0.99, 0.95, 0.2)
    assert (rules.entropy_coeff, rules.use_kl_loss, rules.vf_clip_param, rules.grad_clip) == (0, False, None, None)
    assert (sweep.cluster.num_envs_per_env_runner, sweep.cluster.torch_threads) == (copies, 2)


@pytest.mark.parametrize(("work", "world"), CHOICES, ids=IDS)
def test_all_contestants_play_the_same_game(work, world):
    group = build_world(work.sweep(world, 1), 1).groups[0]
    theirs = parallel_env(work.name)
    assert len(group.agents) == len(theirs.possible_agents) == work.agents
    for space in (group.observation_space, theirs.observation_space(theirs.possible_agents[0])):
        assert space.shape == (work.observation_dim,)
    for space in (group.action_space, theirs.action_space(theirs.possible_agents[0])):
        assert space.n == work.num_actions


@pytest.mark.parametrize("name", WORKS)
def test_the_reference_worlds_end_after_the_works_episode(name):
    env, work = parallel_env(name), WORKS[name]
    env.reset(seed=0)
    for step in range(1, work.episode_steps + 1):
        assert env.agents, f"ended before step {step}"
        seen, rewards, _, truncated, _ = env.step(dict.fromkeys(env.agents, 0))
    assert not env.agents
    assert all(truncated.values())
    assert len(seen) == len(rewards) == work.agents


def test_workers_are_for_pettingzoo_only():
    with pytest.raises(ValueError, match="--workers is for PettingZoo worlds, got 2 with the world batched"):
        WORKS["W1"].words("batched", 240, workers=2)
    assert WORKS["W1"].sweep("pettingzoo", 24, workers=2).env.workers == 2


# -- the contestants ---------------------------------------------------------------------------------------------------


def test_our_learner_takes_the_gradient_steps_that_the_work_means(ray_session):
    work = WORKS["W2"]
    (iteration,) = train(work.sweep("batched", 50), warmup=1, iterations=1)
    assert (iteration.agent_steps, iteration.gradient_steps) == (work.agent_steps, work.gradient_steps)
    assert 0 < iteration.sampling + iteration.learning <= iteration.seconds


def test_ppo_by_hand_learns_from_as_much_and_in_as_many_steps():
    work = WORKS["W2"]
    ppo = HandWrittenPpo(work, envs=50)
    before = [parameter.detach().clone() for parameter in ppo.actor.parameters()]
    iteration = ppo.iterate()
    assert (iteration.agent_steps, iteration.gradient_steps) == (work.agent_steps, work.gradient_steps)
    assert any((old != new).any() for old, new in zip(before, ppo.actor.parameters(), strict=True))


@pytest.mark.slow
def test_throughput_prints_one_json_object_from_any_folder(tmp_path):
    words = ["--work", "W2", "--rollout", "batched", "--iterations", "1", "--warmup", "1", "--json"]
    command = [sys.executable, str(ROOT / "benchmarks" / "throughput.py"), *words]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}  # benchmarks/ is in no installation
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    assert set(printed) == {
        *("contestant", "work", "world", "envs", "rollout", "workers", "threads", "iterations"),
        *("agent_steps", "gradient_steps", "gradient_steps_meant", "agent_steps_per_s", "sampled_per_s"),
        *("iteration_s", "sampling_s", "learning_s", "memory", "versions"),
    }
    assert printed["gradient_steps"] == [printed["gradient_steps_meant"]] == [40]
    assert set(printed["agent_steps_per_s"]) == {"median", "min", "max"}
    assert printed["memory"]["tree_mb"] > printed["memory"]["process_mb"] > 100
    assert not list(tmp_path.iterdir())


# -- under control -----------------------------------------------------------------------------------------------------


def test_a_command_that_takes_too_long_ends_with_all_that_it_started():
    mark = uuid.uuid4().hex
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(97)  # {mark}'])"
    with pytest.raises(CommandError, match=r"not done after 1 s"):
        run_json(["-c", child], timeout_s=1)
    time.sleep(0.2)
    assert not [p for p in psutil.process_iter(["cmdline"]) if mark in " ".join(p.info["cmdline"] or [])]


def test_a_command_that_fails_or_talks_is_refused_with_its_own_words():
    with pytest.raises(CommandError, match="exit code 1: ValueError: broken"):
        run_json(["-c", "raise ValueError('broken')"], timeout_s=30)
    with pytest.raises(CommandError, match="where one JSON object was due"):
        run_json(["-c", "print('hello'); print('{}')"], timeout_s=30)
    assert run_json(["-c", "print('{\"a\": 1}')"], timeout_s=30) == {"a": 1}


METERED = """
import json, subprocess, sys
from benchmarks.memory_meter import MemoryMeter
with MemoryMeter() as before:
    pass
block = b"x" * 2**27
child = "import sys; block = b'x' * 2**26; print(flush=True); sys.stdin.read()"
with subprocess.Popen([sys.executable, "-c", child], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as started:
    started.stdout.readline()
    with MemoryMeter() as after:
        pass
    started.communicate()
print(json.dumps([before.peak, after.peak]))
"""


def test_the_memory_meter_sees_a_process_and_its_children():
    before, after = run_json(["-c", METERED], timeout_s=60)
    assert (before["processes"], after["processes"]) == (1, 2)
    assert before["tree_mb"] == before["process_mb"]
    assert after["process_mb"] - before["process_mb"] == pytest.approx(128, abs=8)
    assert after["tree_mb"] - after["process_mb"] == pytest.approx(64, abs=16)


def test_a_row_of_progress_counts_once_it_is_whole(tmp_path):
    path = tmp_path / "sweep" / "progress.csv"
    path.parent.mkdir()
    assert not startup.has_row(tmp_path)
    path.write_text("trial,row\n1")
    assert not startup.has_row(tmp_path)
    path.write_text("trial,row\n1,1\n")
    assert startup.has_row(tmp_path)


# -- the comparison ----------------------------------------------------------------------------------------------------


def figure(*names):
    return Figure(names, lambda result: result["rate"])


def test_a_claim_is_judged_within_rounds_against_the_best():
    claim = Claim("W2", "faster", "1/s", figure("ours"), figure("a", "b"), at_least=True, target=2)
    rounds = [
        {"ours": {"rate": 10}, "a": {"rate": 4}, "b": {"rate": 1}},
        {"ours": {"rate": 100}, "a": {"rate": 1}, "b": {"rate": 50}},
        {"ours": {"rate": 3}, "a": {"rate": 2}, "b": {"rate": 2}},
        {"a": {"rate": 1}, "b": {"rate": 1}},  # ours failed
    ]
    row = claim.judge(rounds)
    assert row["figure"] == {"median": 2.0, "min": 1.5, "max": 2.5}
    assert (row["ours"]["median"], row["other"]["median"], row["met"]) == (10, 4, True)
    assert claim.judge(rounds[2:])["met"] is False
    assert claim.judge(rounds[3:])["met"] is None
    cheaper = Claim("start", "sooner", "s", figure("ours"), figure("a"), at_least=False, target=2)
    assert [cheaper.judge([results])["met"] for results in rounds[:3]] == [False, False, True]


def test_every_claim_names_contestants_that_exist_and_commands_that_are_there():
    assert set().union(*(claim.contestants for claim in CLAIMS)) == set(CONTESTANTS)
    for contestant in CONTESTANTS.values():
        flag, module, *words = contestant.command(QUICK, threads=1)
        assert flag == "-m"
        assert (ROOT / f"{module.replace('.', '/')}.py").is_file()
        assert "--json" in words
        assert not any("{" in word for word in words)


def test_compare_runs_only_what_is_needed_and_reports_a_failure(tmp_path, monkeypatch, capsys):
    ran = []

    def fake(command, timeout_s, threads):
        ran.append(command[1])
        if command[1] == "benchmarks.reference.rllib_ppo":
            raise CommandError("it broke")
        return {"memory": {"process_mb": 100}}

    monkeypatch.setattr(compare, "run_json", fake)
    out = tmp_path / "new" / "figures.json"
    assert compare.main(["--only", "memory", "--quick", "--json", "--out", str(out)]) == 1
    printed = json.loads(capsys.readouterr().out)
    assert ran == ["benchmarks.throughput", "benchmarks.reference.rllib_ppo"]
    assert printed == json.loads(out.read_text())
    assert printed["rounds"][0]["W2 stock"] == {"error": "it broke"}
    assert [row["met"] for row in printed["claims"]] == [None]
    monkeypatch.setattr(compare, "run_json", lambda *_: {"memory": {"process_mb": 100}})
    assert compare.main(["--only", "memory", "--quick", "--out", str(out)]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("memory"))
    assert line.endswith("100    100  MiB  1 times [1, 1]     <= 1    yes")


def test_compare_refuses_a_part_that_is_not_there(capsys):
    with pytest.raises(SystemExit) as stop:
        compare.main(["--only", "W2,speed"])
    assert stop.value.code == 2
    assert "must be some of W2,W1" in capsys.readouterr().err
