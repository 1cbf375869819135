"""The settings' values, as YAML: read by Hydra as pkg://conf, so that they are found wherever the command is typed."""
