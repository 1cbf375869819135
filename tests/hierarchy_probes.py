"""Worlds that managers are tried in."""

import dataclasses

from marl_tune.envs import default_config

COLONY = default_config("ant_colony", grid_size=[6, 6], n_agents=3, n_food_sources=2, max_steps=20)
WORLDS = {
    "ant_colony": COLONY,
    "mpe/simple_spread": dataclasses.replace(default_config("mpe/simple_spread"), max_cycles=12),
    "mpe/simple_spread_v3": default_config("pettingzoo", id="mpe/simple_spread_v3", kwargs={"max_cycles": 12}),
    "mpe/simple_tag": dataclasses.replace(default_config("mpe/simple_tag"), max_cycles=12),
    "tictactoe": default_config("pettingzoo", id="classic/tictactoe_v3", kwargs={}),
    "mortals": default_config("pettingzoo", id="pettingzoo_probes", kwargs={"probe": "mortals"}),
}
TURNS = ("tictactoe", "mortals")
