"""Wrong settings: each ends with exit code 2 and one line that names the key and the rule, before anything starts."""

import os
import re
import subprocess
import sys
import types
from pathlib import Path

import pytest

from marl_tune.__main__ import main

ROOT = Path(__file__).resolve().parents[2]
PBT = ["+experiment=ant_colony"]
RANDOM = ["search=random"]
SCOUTS = ["sharing=roles", "+sharing.roles.scouts={agents:['*']}"]


def space(entry: str) -> str:
    return f"+space={{{entry}}}"


BAD = [
    # Words that Hydra cannot read, options and keys that are not there.
    (["search", "optuna"], "'search' must be written key=value"),
    (["algorithm.lr=[1"], "'algorithm.lr=[1' cannot be read"),
    (["=3"], "'=3' must be written key=value"),
    (["--fast"], "--fast"),
    (["-cn"], "-cn"),
    (["-m", "--cfg", "job"], "--multirun"),
    (["-cn", "nope"], "'nope'"),
    (["-cd", "nope"], "nope"),
    (["module=mlpp"], "module 'mlpp' is not known: did you mean 'mlp'?"),
    (["algorithm=dqn"], "algorithm 'dqn' is not known (valid: a2c, mappo, ppo)"),
    (["module=null"], "module must be one of mlp"),
    (["~module"], "module must be one of mlp"),
    (["modul=mlp"], "key 'modul' is not known: did you mean 'module'?"),
    (["experiment=ant_colony"], "+experiment=..."),
    (["+experiment=ant_colonies"], "experiment 'ant_colonies' is not known: did you mean 'ant_colony'?"),
    (["algorithm.lrr=1"], "key 'algorithm.lrr' is not known: did you mean 'algorithm.lr'?"),
    (["+algorithm.lrr=1"], "key 'algorithm.lrr' is not known: did you mean 'algorithm.lr'?"),
    (["++algorithm.lrr=1"], "key 'algorithm.lrr' is not known: did you mean 'algorithm.lr'?"),
    (["lr=1"], "key 'lr' is not known: did you mean 'algorithm.lr'?"),
    (["stopp.iterations=1"], "key 'stopp.iterations' is not known: did you mean 'stop.iterations'?"),
    (["+foo=1"], "key 'foo' is not known"),
    (
        ["env=classic/connect_four", "module=cnn", "module.conv_filters=[[8,4,1,0],[8,5,1,0]]"],
        "module.conv_filters must have kernels no larger than what they read, 3 x 4 with its padding, got [[8, 4, 1, 0",
    ),
    (["algorithm.lr_end_factor=2"], "algorithm.lr_end_factor must be between 0 and 1, got 2"),
    (
        ["algorithm.entropy_end_factor=0", "stop.iterations=null", "stop.agent_steps=null", "stop.target=0.5"],
        "algorithm.entropy_end_factor must be 1 where neither stop.agent_steps nor stop.iterations says when a trial",
    ),
    (["module=mlp", "module.max_seq_len=5"], "key 'module.max_seq_len' is not known"),
    (["group_options={a:{}}"], "group_options"),
    (["~seed"], "seed must be set"),
    (["~algorithm.lr"], "algorithm.lr cannot be taken out"),
    (["~algorithm.lrr"], "algorithm.lrr cannot be taken out"),
    (["+seed=3"], "seed must be written without the plus sign"),
    (["results_dir=${nowhere}"], "results_dir must refer to a key that exists"),
    (["seed=1,2"], "seed=1,2 must be one value: add -m"),
    (["-m", "module=mlp,mlpp"], "module 'mlpp' is not known: did you mean 'mlp'?"),
    (["-m", "algorithm.lr=1e-3,-1"], "algorithm.lr must be above 0, got -1.0"),
    (["module.name=lstm"], "module.name must be left as it is"),
    # Values of the wrong type.
    (["algorithm.lr=abc"], "algorithm.lr must be a number, got 'abc'"),
    (["algorithm.lr=null"], "algorithm.lr must not be null"),
    (["algorithm.num_epochs=1.5"], "algorithm.num_epochs must be a whole number, got '1.5'"),
    (["seed=abc"], "seed must be a whole number, got 'abc'"),
    (["dry_run=maybe"], "dry_run must be true or false, got 'maybe'"),
    (["env.grid_size=3"], "env.grid_size must be a list, got '3'"),
    (["space=3"], "space must be a mapping"),
    (["stop=3"], "stop must be a mapping"),
    (["stop.plateau.patience=4"], "stop.plateau.patience must be set with its whole section"),
    (["stop.plateau={patience:4}"], "stop.plateau.min_delta must be set"),
    (["logger=csv", "logger.wandb.project=x"], "logger.wandb.project must be set with its whole section"),
    # Values out of range.
    (["seed=-1"], "seed must be at least 0"),
    (["name=a/b"], "name must be one word"),
    (["name="], "name must be one word"),
    (["algorithm.lr=0"], "algorithm.lr must be above 0, got 0.0"),
    (["algorithm.lr=nan"], "algorithm.lr must be above 0, got nan"),
    (["algorithm.gamma=1.1"], "algorithm.gamma must be between 0 and 1"),
    (["algorithm.lambda_=-0.1"], "algorithm.lambda_ must be between 0 and 1"),
    (["algorithm.clip_param=0"], "algorithm.clip_param must be above 0"),
    (["algorithm.adam_beta1=1"], "algorithm.adam_beta1 must be at least 0 and below 1"),
    (["algorithm.num_epochs=0"], "algorithm.num_epochs must be at least 1"),
    (["algorithm.grad_clip_by=size"], "algorithm.grad_clip_by must be one of global_norm"),
    (["env.n_agents=0"], "env.n_agents"),
    (["env.sense_radius=-1"], "env.sense_radius"),
    (["env.pheromone_decay=1.5"], "env.pheromone_decay"),
    (["module.hidden_dims=[]"], "module.hidden_dims"),
    (["module.activation=step"], "module.activation must be one of"),
    (["module=pheromone_attention", "module.num_heads=5"], "module.num_heads must divide module.attention_dim (32)"),
    (["search.metric='return mean'"], "search.metric must be a result's name"),
    (["search.mode=best"], "search.mode must be one of max, min"),
    (["search.max_concurrent=0"], "search.max_concurrent must be at least 1"),
    (["stop.iterations=null"], "stop must set at least one of iterations"),
    (["stop.iterations=0"], "stop.iterations must be at least 1"),
    (["selection.confidence=1"], "selection.confidence must be above 0 and below 1"),
    (["selection.top_k=0"], "selection.top_k must be at least 1"),
    (["breakthroughs.window=1"], "breakthroughs.window must be at least 2"),
    (["breakthroughs.deviations=0"], "breakthroughs.deviations must be above 0"),
    (["breakthroughs.min_episodes=99"], "breakthroughs.min_episodes must be at least twice breakthroughs.window (100)"),
    (["breakthroughs.size=3"], "key 'breakthroughs.size' is not known"),
    (["breakthroughs=true"], "breakthroughs must be a mapping"),
    (["env.curriculum.threshold=3"], "env.curriculum.threshold must be set with its whole section"),
    (["env.curriculum={stages:[{n_agent:2}],threshold:3,episodes:9}"], "key 'env.curriculum.stages[0].n_agent' is not"),
    (["+experiment=ant_colony_curriculum", "env.curriculum.fall_back=1"], "env.curriculum.fall_back must be below"),
    (["+experiment=ant_colony_curriculum", "sharing=independent"], "env.curriculum.stages[0] must keep the modules"),
    (
        ["+experiment=pistonball", "module=mlp"],
        "module=mlp must have the key module.conv_filters, which experiment/pistonball sets: choose another option",
    ),
    (["+experiment=pursuit", "env=signal"], "env=signal must have the key env."),
    (["logger.progress=bar"], "logger.progress must be one of auto"),
    (["logger.wandb.mode=always"], "logger.wandb.mode must be one of auto"),
    (["cluster.rollout=fast"], "cluster.rollout must be one of batched"),
    (["cluster.address=10.0.0.1:6379"], "cluster.address must be null under cluster=local"),
    (["cluster=auto", "cluster.address=null"], "cluster.address must be host:port or auto"),
    (["cluster.num_gpus_per_learner=1.5"], "cluster.num_gpus_per_learner must be a whole number where it is above 1"),
    # Rules over several keys.
    (["algorithm.minibatch_size=30000"], "algorithm.minibatch_size must be at most algorithm.train_batch_size"),
    (["cluster.num_learners=2", "algorithm.minibatch_size=20000"], "algorithm.minibatch_size must be at most"),
    (["cluster.num_envs_per_env_runner=5000"], "algorithm.train_batch_size must be at least 50000"),
    (["module=lstm", "module.max_seq_len=3000"], "algorithm.minibatch_size must hold at least one sequence"),
    (["cluster.num_gpus=64"], "cluster.num_gpus must be at most"),
    (["cluster.num_cpus=100000"], "cluster.num_cpus must be at most"),
    (["cluster.num_env_runners=100000", "algorithm.train_batch_size=100000000"], "cluster.num_env_runners"),
    (["cluster.num_cpus=1", "cluster.num_learners=1"], "cluster.num_learners must fit one trial into 1 CPUs"),
    (["cluster.num_gpus_per_learner=64"], "cluster.num_gpus_per_learner"),
    (["checkpoint.frequency=0", "checkpoint.at_end=false"], "checkpoint.at_end must be true"),
    (["search.metric=evaluation/return_mean_agent"], "evaluation.interval must be at least 1"),
    (["search.metric=breakthroughs", "breakthroughs=null"], "search.metric must be something else where breakthroughs"),
    (
        ["search.metric=breakthrough_frequency", "cluster.rollout=rllib"],
        "search.metric must be something else under cluster.rollout=rllib",
    ),
    (["evaluation.seed=0"], "evaluation.seed must keep its 20 held-out seeds clear of the training seed (0)"),
    (["selection.seed=1000019"], "selection.seed must keep its 100 seeds clear of the evaluation's"),
    (["sharing=roles", "sharing.roles=null"], "sharing.roles must"),
    (["sharing=roles"], "sharing.roles must name at least one role under sharing=roles, such as '+"),
    (["sharing=roles", "+sharing.roles.scouts.agents=[]"], "sharing.roles.scouts.agents must hold at least one"),
    ([*SCOUTS, "sharing.roles.scouts.lr=1"], "sharing.roles.scouts.lr must be added with a plus sign"),
    ([*SCOUTS, "+sharing.roles.scouts.module.hidden=3"], "key 'sharing.roles.scouts.module.hidden'"),
    ([*SCOUTS, "+sharing.roles.scouts.module.activation=step"], "sharing.roles.scouts.module.activation must"),
    ([*SCOUTS, "+sharing.roles.scouts.module.name=lstm"], "sharing.roles.scouts.module.name must be left out"),
    (["+sharing.roles.x={agents:['*'],module:{}}"], "sharing.roles must be empty under sharing=parameter_sharing"),
    (["resume=nowhere"], "resume must be the folder of a run; it does not exist"),
    (["resume=there"], "resume must be the folder of a run, with its config.yaml"),
    (["results_dir=file/results"], "results_dir must be a folder that can be written to"),
    # PettingZoo's worlds, which only making one can judge.
    (["env=pettingzoo", "env.id=mpe/simple_spred_v3"], "did you mean mpe/simple_spread_v3?"),
    (["env=pettingzoo", "+env.kwargs.max_cycle=3"], "env.kwargs must hold arguments"),
    (["env=pettingzoo", "env.kwargs.max_cycles=3"], "env.kwargs.max_cycles must be added with a plus sign"),
    (["env=pettingzoo", "env.workers=11"], "env.workers must be at most cluster.num_envs_per_env_runner (10)"),
    (["env=pettingzoo", "algorithm.train_batch_size=29", "algorithm.minibatch_size=29"], "must be at least 30"),
    # The search and its space.
    (["search=optuna"], "space must have an entry under search=optuna"),
    (["search=pbt"], "space must have an entry under search=pbt"),
    ([*PBT, "search.num_samples=1"], "search.num_samples must be at least 2 under search=pbt"),
    ([*PBT, "search.quantile_fraction=0.6"], "search.quantile_fraction must be above 0 and at most 0.5"),
    ([*PBT, "search.perturbation_factors=[0.8]"], "search.perturbation_factors must be two factors above 0"),
    ([*PBT, "stop.agent_steps=80000"], "search.perturbation_interval must be below the 4 iterations"),
    ([*PBT, space("module.hidden_dims:{choice:[[8],[9]]}")], "space.module.hidden_dims must be left out"),
    ([*PBT, space("env.n_agents:{randint:[5,9]}")], "space.env.n_agents must be left out under search=pbt"),
    ([*PBT, space("seed:{choice:[1,2]}")], "space.seed must be left out under search=pbt"),
    ([*PBT, space("module:{choice:[mlp,lstm]}")], "space.module must be left out under search=pbt"),
    ([*PBT, space("algorithm.gamma:{grid:[0.9,0.99]}")], "space.algorithm.gamma must be a choice, not a grid"),
    ([*PBT, "search=pb2", space("algorithm.num_epochs:{randint:[1,5]}")], "space.algorithm.num_epochs must be uniform"),
    (["module=gru", "cluster.rollout=rllib"], "cluster.rollout must be batched"),
    ([*PBT, "search=grid"], "space.algorithm.lr must be a grid or choice under search=grid"),
    ([*PBT, "search=asha", "search.grace_period=61"], "search.grace_period must be at most the 60"),
    ([*PBT, "search=asha", "search.time_attr=time_total_s"], "search.max_t must be set"),
    (["search=asha", "search.max_t=3"], "search.grace_period must be at most search.max_t (3)"),
    ([*RANDOM, space("algorithm.lrr:{uniform:[0.1,1]}")], "space: key 'algorithm.lrr' is not known: did you mean"),
    ([*RANDOM, space("name:{choice:[a]}")], "space.name must be left out: it is the same for all trials"),
    ([*RANDOM, space("stop.iterations:{choice:[3]}")], "space.stop.iterations must be left out"),
    ([*RANDOM, space("algorithm.name:{choice:[ppo]}")], "space.algorithm.name must be left out"),
    ([*RANDOM, space("algorithm.lr:{normal:[0,1]}")], "space.algorithm.lr: distribution 'normal' is not known"),
    ([*RANDOM, space("algorithm.lr:[0,1]")], "space.algorithm.lr must be one distribution"),
    ([*RANDOM, space("algorithm.lr:{uniform:1}")], "space.algorithm.lr.uniform must be a list"),
    ([*RANDOM, space("algorithm.lr:{uniform:[1]}")], "space.algorithm.lr.uniform must be 2 numbers"),
    ([*RANDOM, space("algorithm.lr:{uniform:[2,1]}")], "space.algorithm.lr.uniform must have low below high"),
    ([*RANDOM, space("algorithm.lr:{loguniform:[0,1]}")], "space.algorithm.lr.loguniform must have low above 0"),
    ([*RANDOM, space("algorithm.num_epochs:{randint:[1,2.5]}")], "space.algorithm.num_epochs.randint must be whole"),
    ([*RANDOM, space("algorithm.lr:{choice:[]}")], "space.algorithm.lr.choice must hold at least one value"),
    ([*RANDOM, space("algorithm.lr:{choice:[0.1,a]}")], "algorithm.lr must be a number, got 'a', reached by space."),
    ([*RANDOM, space("algorithm.lr:{uniform:[-1,1]}")], "algorithm.lr must be above 0, got -1.0, reached by space."),
    ([*RANDOM, space("algorithm.num_epochs:{uniform:[1,4]}")], "algorithm.num_epochs must be a whole number"),
    ([*RANDOM, space("algorithm.minibatch_size:{choice:[100,30000]}")], "algorithm.minibatch_size must be at most"),
    ([*RANDOM, "module=pheromone_attention", space("module.num_heads:{choice:[4,5]}")], "module.num_heads must divide"),
    ([*RANDOM, space("module:{choice:[mlp,mlpp]}")], "'mlpp' is not known: did you mean 'mlp'?"),
    ([*RANDOM, space("module:{uniform:[0,1]}")], "space.module must be a choice or grid of the group's options"),
    ([*RANDOM, space("module:{choice:[lstm,mlp]},module.max_seq_len:{choice:[5]}")], "key 'module.max_seq_len'"),
]  # fmt: skip


@pytest.fixture
def empty_folder(tmp_path, monkeypatch):
    """A working directory with a file and a folder; a sweep that starts all the same is an error."""

    def started(sweep, command):
        raise AssertionError("a sweep with wrong settings was started")

    monkeypatch.setitem(sys.modules, "marl_tune.sweep.run", types.SimpleNamespace(run=started))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "there").mkdir()
    return tmp_path


def files(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


@pytest.mark.parametrize(("words", "message"), BAD, ids=[" ".join(words) for words, _ in BAD])
def test_refused(words, message, empty_folder, capsys):
    before = files(empty_folder)
    assert main(words) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert re.fullmatch(r"error: [^\n]+\n", printed.err), printed.err
    assert message in printed.err
    assert files(empty_folder) == before


def test_the_first_job_does_not_start_when_the_last_is_wrong(empty_folder, capsys):
    assert main(["-m", "+experiment=ant_colony", "stop.agent_steps=400000,80000"]) == 2
    assert "search.perturbation_interval" in capsys.readouterr().err


def command_line(words: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """The real thing, from another folder."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "marl_tune", *words]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["module=mlpp"], "error: module 'mlpp' is not known: did you mean 'mlp'?"),
        (["+experiment=ant_colony", "-m", "seed=1,b"], "error: seed must be a whole number, got 'b'"),
        (["-cd", str(ROOT / "sweeps"), "-cn", "ant_colony_pbt", "algorithm.lr=0"], "error: algorithm.lr must be above"),
        (["algorithm.minibatch_size=30000"], "error: algorithm.minibatch_size must be at most"),
    ],
)
def test_refused_on_the_command_line(words, message, tmp_path):
    done = command_line(words, tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(message)
    assert done.stderr.count("\n") == 1
    assert files(tmp_path) == set()


def test_folders_of_the_users_with_the_names_of_ours_do_no_harm(tmp_path):
    for folder in ("envs", "modules", "conf", "sweeps"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "__init__.py").write_text("raise RuntimeError('not ours')")
    done = command_line(["-cn", "ant_colony_pbt", "--cfg", "job"], tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "name: ant_colony_pbt" in done.stdout
