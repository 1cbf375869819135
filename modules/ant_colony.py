"""All three bio-inspired parts in one module."""

from marl_tune.modules.curiosity import Curiosity
from marl_tune.modules.pheromone_attention import PheromoneAttention
from marl_tune.modules.plasticity import Plasticity


class AntColony(PheromoneAttention, Plasticity, Curiosity):
    """An encoder with attention over the pheromone, a plastic layer as memory, and curiosity beside them.

    Each parent class provides one part: `PheromoneAttention` the encoder, `Plasticity` the memory (state `trace`),
    `Curiosity` the ICM. The settings are those of all three.

    Raises:
        ValueError: when built for a world without direction tokens.
    """
