"""Ready sweeps, as YAML: read by Hydra as pkg://marl_tune.sweeps, so that `-cn NAME` finds them from anywhere."""
