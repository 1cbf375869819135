"""What Ray imports into the processes that it holds ready for trials; see `marl_tune.cluster.connect`."""

from marl_tune.cluster.fast_imports import uncollected

with uncollected():
    import marl_tune.trial.trial  # noqa: F401
