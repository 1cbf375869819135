"""MAPPO: PPO with a critic that all agents share (Yu et al. 2022)."""

from __future__ import annotations

from marl_tune.algorithms.ppo import Ppo


class Mappo(Ppo):
    """MAPPO's learner (https://arxiv.org/abs/2103.01955).

    The actors learn as PPO's do. The critic is the module that `sharing=shared_critic` adds; its loss, with value
    normalisation, Huber's function and clipped values, is `marl_tune.learning.central_critic_loss`.
    """
