"""All three bio-inspired parts in one module."""

from marl_tune.modules.curiosity import Curiosity
from marl_tune.modules.pheromone_attention import PheromoneAttention
from marl_tune.modules.plasticity import Plasticity


class AntColony(PheromoneAttention, Plasticity, Curiosity):
    """Attention over the pheromone as encoder, a plastic layer as memory, and curiosity beside them.

    Each parent gives one part: `PheromoneAttention` the encoder, `Plasticity` the memory (state `trace`), `Curiosity`
    the ICM. Settings are those of the three together.

    Raises:
        ValueError: when built for a world without direction tokens.
    """
