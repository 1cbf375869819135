"""Ray imports this module into the processes that it keeps ready for trials; see `marl_tune.cluster.connect`."""

from marl_tune.cluster.fast_imports import uncollected

with uncollected():
    import marl_tune.trial.trial  # noqa: F401
