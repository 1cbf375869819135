"""marl_tune: hyper-parameter sweeps in multi-agent reinforcement learning, on RLlib and Ray Tune, composed by Hydra.

Nothing is imported here, so that `import marl_tune` costs nothing; see `marl_tune.config` (settings), `marl_tune.run`
(sweeps) and `python -m marl_tune --help`.
"""
