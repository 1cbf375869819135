"""marl_tune: hyper-parameter sweeps for multi-agent reinforcement learning on Ray Tune, composed with Hydra.

Nothing is imported here, so that `import marl_tune` costs nothing; see `marl_tune.config` (settings), `marl_tune.sweep`
(sweeps) and `python -m marl_tune --help`.
"""

from os import path as _path

if not _path.exists(_path.join(__path__[0], "envs", "__init__.py")):  # not installed, but in its repository
    __path__.append(_path.dirname(__path__[0]))  # where marl_tune.envs, .modules, .conf and .sweeps lie beside it
