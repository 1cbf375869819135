"""PB2, apart from PBT because it needs scikit-learn, which takes seconds to import."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ray.tune.schedulers.pb2 import PB2

from marl_tune.population import Population
from marl_tune.space import Distribution


class Pb2(Population, PB2):
    """Tune's PB2 (Parker-Holder et al. 2020, https://arxiv.org/abs/2002.02518): a Gaussian process explores."""

    def __init__(self, *, space: Mapping[str, Distribution], **settings: Any):
        bounds = {key: [float(d.low), float(d.high)] for key, d in space.items()}
        super().__init__(hyperparam_bounds=bounds, log_config=False, **settings)
        self.listeners = []
