"""The settings' values, as YAML: read by Hydra as pkg://marl_tune.conf, so that they are found from anywhere."""
