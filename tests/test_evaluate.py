"""`python -m marl_tune.evaluate` needs a policy and its world, and nothing that trains."""

import json
import subprocess
import sys

from marl_tune.config import convert
from marl_tune.results.checkpoint_files import save_whole
from marl_tune.results.checkpoint_folder import CONFIG, POLICY
from marl_tune.sharing.module_specs import build_policy_map, module_specs
from marl_tune.sharing.world_facts import world_facts

TRAINING = ("learning", "algorithms", "trial", "search", "sweep", "self_play")  # packages of ours

CODE = """
import json, sys
import marl_tune.evaluate
code = marl_tune.evaluate.main([sys.argv[1], "--episodes", "2", "--json"])
import marl_tune.evaluation.scripted_opponents  # what --against imports
print(json.dumps({"code": code, "modules": sorted(sys.modules)}))
"""


def test_evaluating_imports_nothing_that_trains(tiny, tmp_path):
    """Forbids our own packages only: RLlib itself imports `ray.tune` when one of its modules is imported.

    That Tune comes in through RLlib alone is checked, too: once RLlib no longer imports it, this test fails, and can
    forbid `ray.tune` as well.
    """
    sweep = tiny("module.hidden_dims=[8]")
    team = module_specs(sweep, build_policy_map(sweep, world_facts(sweep))).build()
    (tmp_path / CONFIG).write_text(json.dumps(convert.to_dict(sweep)))
    save_whole(team.get_state(), tmp_path / POLICY)
    words = [sys.executable, "-c", CODE, str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    played, told = map(json.loads, done.stdout.splitlines()[-2:])
    assert told["code"] == 0
    assert played["episodes"] == 2
    ours = [name for name in told["modules"] if name.split(".")[:1] == ["marl_tune"]]
    assert "marl_tune.evaluation.play" in ours
    assert [name for name in ours if name.split(".")[1:2] and name.split(".")[1] in TRAINING] == []
    assert "ray.tune" in told["modules"]
    importing = "import sys, ray.rllib.core.rl_module.rl_module; assert 'ray.tune' in sys.modules"
    assert subprocess.run([sys.executable, "-c", importing], timeout=100).returncode == 0


def test_a_wrong_command_line_is_answered_without_torch():
    code = (
        "import sys; from marl_tune.evaluate import main; code = main(['nowhere']);"
        "assert not {'torch', 'ray'} & set(sys.modules); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: PATH must be"), done.stderr
