"""marl_tune: hyper-parameter sweeps for multi-agent reinforcement learning on Ray Tune, composed with Hydra."""
