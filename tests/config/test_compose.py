"""From the command line's words to sweeps: the groups, experiments and sweeps, jobs, exit codes, help."""

import os
import subprocess
import sys
import types
from pathlib import Path

import pytest
import yaml

from marl_tune.__main__ import main
from marl_tune.config import help
from marl_tune.config.compose import compose
from marl_tune.config.convert import field_types
from marl_tune.config.errors import ConfigError
from marl_tune.config.registry import GROUPS, options, schema
from marl_tune.config.search_space import parse, trial_count
from marl_tune.validation.validate import validate

ROOT = Path(__file__).resolve().parents[2]
CONF, SWEEPS = ROOT / "conf", ROOT / "sweeps"
OPTIONS = [(group, name) for group in GROUPS for name in options(group)]
# What users' scripts rely on.
SECTIONS = {"evaluation", "breakthroughs", "checkpoint", "stop", "selection"}
PARTS = {"env", "module", "sharing", "algorithm", "search", "logger", "cluster"}
TOP_LEVEL = {"name", "seed", "space", "results_dir", "resume", "dry_run"} | SECTIONS | PARTS


def stems(folder: Path) -> list[str]:
    return sorted(file.relative_to(folder).with_suffix("").as_posix() for file in folder.rglob("*.yaml"))


@pytest.fixture
def runs(monkeypatch, tmp_path):
    """The working directory is empty; sweeps are noted instead of run, with the exit codes of `runs.codes` in turn."""
    noted = types.SimpleNamespace(sweeps=[], commands=[], codes=[])

    def run(sweep, command):
        noted.sweeps.append(sweep)
        noted.commands.append(command)
        return noted.codes.pop(0) if noted.codes else 0

    monkeypatch.setitem(sys.modules, "marl_tune.sweep.run", types.SimpleNamespace(run=run))
    monkeypatch.chdir(tmp_path)
    return noted


# The files of conf/ and the dataclasses.


@pytest.mark.parametrize("group", GROUPS)
def test_files_are_the_registered_options_and_presets_of_them(group):
    """A preset has no name of its own: it is another option with other values."""
    sources = {stem: yaml.safe_load((CONF / group / f"{stem}.yaml").read_text()) for stem in stems(CONF / group)}
    assert [stem for stem, source in sources.items() if "name" in source] == sorted(options(group))
    bases = [f"/{group}/{name}@_here_" for name in options(group)]
    for stem, source in sources.items():
        if "name" not in source:
            base, own = source["defaults"]
            assert base in bases, stem
            assert own == "_self_", stem


@pytest.mark.parametrize(("group", "name"), OPTIONS)
def test_option_is_the_whole_dataclass_and_composes(group, name):
    source = yaml.safe_load((CONF / group / f"{name}.yaml").read_text())
    assert source.pop("defaults") == [f"/schema/{group}/{name}@_here_", "_self_"]
    assert source["name"] == name
    assert list(source) == list(field_types(schema(group, name))), "keys and order of the dataclass"
    needs = ["+experiment=ant_colony"] if group == "search" else []
    needs += ["+sharing.roles.all={agents:['*']}"] if name == "roles" else []
    composed = getattr(compose([f"{group}={name}", *needs])[0], group)
    assert type(composed) is schema(group, name)
    assert composed.name == name


def test_top_level_keys():
    source = yaml.safe_load((CONF / "config.yaml").read_text())
    groups = {key for entry in source.pop("defaults") if isinstance(entry, dict) for key in entry}
    assert groups == set(GROUPS)
    assert set(source) | groups == TOP_LEVEL
    assert set(field_types(type(compose([])[0]))) == TOP_LEVEL | {"group_options"}


# Experiments and sweeps.


def test_defaults_are_valid():
    validate(compose([])[0])


@pytest.mark.parametrize("name", stems(CONF / "experiment"))
def test_experiments_are_valid(name):
    sweep = compose([f"+experiment={name}"])[0]
    validate(sweep)
    assert sweep.name == name


@pytest.mark.parametrize("module", options("module"))
def test_the_experiment_works_with_another_module(module):
    sweep = compose(["+experiment=ant_colony", f"module={module}"])[0]
    validate(sweep)
    assert sweep.module.name == module


@pytest.mark.parametrize("search", [name for name in options("search") if name != "grid"])
def test_the_experiment_works_under_another_search(search):
    sweep = compose(["+experiment=ant_colony", f"search={search}"])[0]
    validate(sweep)
    assert sweep.search.name == search


def test_the_command_line_wins_over_the_experiment():
    words = ["env.n_agents=7", "module.hidden_dims=[5]", "sharing=independent", "logger=all", "algorithm.lr=0.5"]
    sweep = compose(["+experiment=ant_colony", "module=plasticity", *words])[0]
    assert (sweep.env.n_agents, sweep.env.grid_size) == (7, [30, 30])
    assert (sweep.module.name, sweep.module.hidden_dims) == ("plasticity", [5])
    assert (sweep.sharing.name, sweep.logger.name, sweep.algorithm.lr) == ("independent", "all", 0.5)
    assert compose(["module=plasticity", "+experiment=ant_colony"])[0].module.name == "plasticity"


def test_experiment_ant_colony():
    sweep = compose(["+experiment=ant_colony"])[0]
    env, cluster = sweep.env, sweep.cluster
    assert (env.grid_size, env.n_agents, env.n_food_sources, env.food_per_source) == ([30, 30], 20, 5, 1)
    assert (env.pheromone_decay, env.pheromone_strength, env.max_steps, env.sense_radius) == (0.98, 0.2, 300, None)
    assert (sweep.search.name, sweep.search.num_samples, sweep.stop.agent_steps) == ("pbt", 4, 1_200_000)
    assert set(sweep.space) == {"algorithm.lr", "algorithm.clip_param", "algorithm.entropy_coeff"}
    assert sweep.algorithm.train_batch_size == env.n_agents * cluster.num_envs_per_env_runner * 100


def test_experiment_ant_colony_trails():
    sweep = compose(["+experiment=ant_colony_trails"])[0]
    env = sweep.env
    assert (env.grid_size, env.n_agents, env.n_food_sources, env.food_per_source) == ([40, 40], 20, 3, 20)
    assert (env.sense_radius, env.max_steps, sweep.search.name) == (3.0, 600, "none")


@pytest.mark.parametrize("name", stems(SWEEPS))
def test_sweeps_are_valid_from_another_folder(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sweep = compose(["-cd", str(SWEEPS), "-cn", name, "seed=3"])[0]
    validate(sweep)
    assert (sweep.name, sweep.seed) == (name, 3)
    assert compose(["-cp", str(SWEEPS), "-cn", name, "seed=3"])[0] == sweep
    assert compose(["-cn", name, "seed=3"])[0] == sweep


def test_a_sweep_of_the_users_comes_before_ours_of_the_same_name(tmp_path):
    (tmp_path / "ant_colony_pbt.yaml").write_text("defaults: [config, _self_]\nname: mine\n")
    assert [sweep.name for sweep in compose(["-cd", str(tmp_path), "-cn", "ant_colony_pbt"])] == ["mine"]


def test_sweep_ablation_tries_each_module_with_each_seed():
    sweep = compose(["-cd", str(SWEEPS), "-cn", "ant_colony_ablation"])[0]
    assert set(sweep.group_options["module"]) == set(sweep.space["module"]["grid"])
    assert trial_count("grid", sweep.search.num_samples, parse(sweep.space)) == 15


# Options and sweeps of the user's own.


def own_folder(tmp_path: Path, module: str) -> list[str]:
    (tmp_path / "own" / "module").mkdir(parents=True)
    (tmp_path / "own" / "module" / "wide.yaml").write_text(module)
    return ["-cd", str(tmp_path / "own"), "module=wide"]


def test_an_option_of_ones_own(tmp_path):
    text = "defaults: [mlp, _self_]\nhidden_dims: [512]\n"
    sweep = compose(own_folder(tmp_path, text))[0]
    assert (type(sweep.module), sweep.module.hidden_dims) == (schema("module", "mlp"), [512])


def test_an_option_without_its_schema_is_refused(tmp_path):
    text = "name: mlp\nhidden_dims: [512]\nactivation: tanh\nseparate_critic: true\n"
    with pytest.raises(ConfigError, match=r"module must name its schema.*/schema/module/mlp@_here_"):
        compose(own_folder(tmp_path, text))


# Jobs and exit codes.


def test_one_job_runs_with_its_command(runs):
    assert main(["+experiment=debug", "seed=0"]) == 0
    assert [sweep.name for sweep in runs.sweeps] == ["debug"]
    assert runs.commands == [["python", "-m", "marl_tune", "+experiment=debug", "seed=0"]]


def test_multirun_is_the_product_and_writes_nothing(runs, tmp_path):
    assert main(["+experiment=debug", "-m", "module=mlp,gru", "seed=1,2"]) == 0
    assert [(s.module.name, s.seed) for s in runs.sweeps] == [("mlp", 1), ("mlp", 2), ("gru", 1), ("gru", 2)]
    assert list(tmp_path.iterdir()) == []


def test_the_exit_code_is_the_worst_of_the_jobs(runs):
    runs.codes = [0, 1, 0]
    assert main(["-m", "+experiment=debug", "seed=1,2,3"]) == 1
    assert len(runs.sweeps) == 3


def test_an_interrupt_leaves_the_other_jobs_out(runs):
    runs.codes = [0, 130, 0]
    assert main(["-m", "+experiment=debug", "seed=1,2,3"]) == 130
    assert len(runs.sweeps) == 2


def test_a_failure_that_is_no_wrong_setting_keeps_its_traceback(runs, monkeypatch):
    def crash(cfg):
        raise KeyError("a bug")

    monkeypatch.setattr("marl_tune.config.compose.to_sweep", crash)
    with pytest.raises(KeyError, match="a bug"):
        main([])


def test_hydra_leaves_the_process_as_it_was(runs, monkeypatch):
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    argv = list(sys.argv)
    main(["+experiment=debug"])
    main(["module=mlpp"])
    assert sys.argv == argv
    assert "HYDRA_FULL_ERROR" not in os.environ


def test_cfg_job_prints_every_setting_and_runs_nothing(runs, capsys, tmp_path):
    assert main(["+experiment=ant_colony", "--cfg", "job"]) == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert set(printed) == TOP_LEVEL
    assert printed["env"]["grid_size"] == [30, 30]
    assert runs.sweeps == []
    assert list(tmp_path.iterdir()) == []


# Help, and what it costs.


def test_help_lists_every_option_with_a_line(runs, capsys):
    assert main(["--help"]) == 0
    printed = capsys.readouterr().out
    for group in (*GROUPS, "experiment"):
        described = help.described(group)
        assert sorted(described) == stems(CONF / group)
        for name, line in described.items():
            assert len(line) > 10, f"conf/{group}/{name}.yaml must start with a comment that says what it is"
            assert f"  {name} " in printed
            assert line in printed
    assert "python -m marl_tune +experiment=ant_colony" in printed
    assert runs.sweeps == []


LIGHT = """
import resource, sys
from marl_tune.__main__ import main
code = main(sys.argv[1:]) if len(sys.argv) > 1 else 0
import marl_tune.config.registry, marl_tune.envs.ant_colony, marl_tune.modules.schemas
heavy = [name for name in ("torch", "ray", "tensorflow", "optuna", "wandb") if name in sys.modules]
used = resource.getrusage(resource.RUSAGE_SELF)
print(code, heavy, used.ru_utime + used.ru_stime, sep="|")
"""


@pytest.fixture(scope="module")
def libraries_s():
    """CPU seconds of the least that an answer takes on this machine: to import what composes and checks."""
    command = [sys.executable, "-c", "import time, gymnasium, hydra, numpy; print(time.process_time())"]
    return float(subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout)


@pytest.mark.parametrize(("words", "code"), [([], 0), (["--help"], 0), (["--cfg", "job"], 0), (["algorithm.lr=-1"], 2)])
def test_answers_come_at_once(words, code, tmp_path, libraries_s):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", LIGHT, *words]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    returned, heavy, seconds = done.stdout.splitlines()[-1].split("|")
    assert returned == str(code)
    assert heavy == "[]"
    assert float(seconds) < 6 * libraries_s, "CPU seconds, in those of this machine"
    assert list(tmp_path.iterdir()) == []


def test_only_config_knows_hydra():
    knows = {
        str(file.relative_to(ROOT))
        for package in ("marl_tune", "envs", "modules")
        for file in (ROOT / package).rglob("*.py")
        for line in file.read_text().splitlines()
        if line.startswith(("import hydra", "from hydra", "import omegaconf", "from omegaconf"))
    }
    assert knows == {"marl_tune/config/compose.py", "marl_tune/config/hydra_errors.py"}


def test_several_jobs_are_composed_by_the_flag_or_by_hydras_mode():
    jobs = compose(["+experiment=debug", "seed=3,4", "hydra.mode=MULTIRUN"])
    assert [job.seed for job in jobs] == [3, 4]
    assert [job.seed for job in compose(["-m", "+experiment=debug", "seed=3,4"])] == [3, 4]
