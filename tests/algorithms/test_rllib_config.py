"""The AlgorithmConfig that a sweep's settings become."""

from marl_tune.algorithms.rllib_config import algorithm_config


def test_modules_have_one_order_in_all_processes(tiny):
    """A set of strings has another order in each process, and initial weights are drawn in the order of the modules."""
    agents = [f"ant_{number}" for number in range(9)]
    config = algorithm_config(tiny("sharing=independent", "env.n_agents=9"))
    assert list(config.policies) == agents
    assert list(config.rl_module_spec.rl_module_specs) == agents
