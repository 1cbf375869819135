"""Types of what PettingZoo's two APIs take and return. PettingZoo itself is imported for annotations only."""

from collections.abc import Hashable
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from pettingzoo import AECEnv, ParallelEnv

    Env: TypeAlias = ParallelEnv | AECEnv
else:
    Env = Any

AgentID: TypeAlias = Hashable  # mostly a string; some worlds name their agents by numbers
Observation: TypeAlias = (
    Any  # an array, or a dict of arrays; a world of a user's own may return whatever NumPy can read
)
Action: TypeAlias = int | np.ndarray | None  # None: of an agent whose episode has ended
Info: TypeAlias = dict[str, object]
ParallelReset: TypeAlias = tuple[dict[AgentID, Observation], dict[AgentID, Info]]  # observations and infos
ParallelStep: TypeAlias = tuple[
    dict[AgentID, Observation], dict[AgentID, float], dict[AgentID, bool], dict[AgentID, bool], dict[AgentID, Info]
]  # observations, rewards, terminations, truncations and infos
