"""Keeps Ray's notices off the terminal. The sweep itself tells the user what matters."""

import logging
import os
import warnings

ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the sweep's own callbacks write every file
    "PYTHONWARNINGS": "ignore",  # of the processes that Ray starts
}


def quiet_ray() -> None:
    """Only errors of Ray are shown from now on. An entry point calls it before it uses Ray."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import ray  # noqa: F401  # Ray sets the levels below when it is imported

    for name in ("ray", "ray.rllib"):  # RLlib's has a level of its own
        logging.getLogger(name).setLevel(logging.ERROR)
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # tracebacks of trials: error.txt keeps them
    warnings.filterwarnings("ignore", category=FutureWarning, module="ray")
    warnings.filterwarnings("ignore", category=DeprecationWarning, module="ray")
