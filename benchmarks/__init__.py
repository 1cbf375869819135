"""Measurements that the README and the changelog quote; each prints what it measured.

    python -m benchmarks.compare        every claimed figure beside its target (make bench)
    python -m benchmarks.throughput     marl_tune alone, on one of the two works of `benchmarks.works`
    python -m benchmarks.reference.X    who it is measured against: rllib_ppo, hand_ppo, floor
    python -m benchmarks.scaling        what an agent-step costs with more ants and more worlds
    python -m benchmarks.startup        from the command to the first result
    python -m benchmarks.startup_patches   what each patch of a pinned library saves
    python -m benchmarks.pbt_cost       what PBT costs
    python -m benchmarks.attention_readout   what pheromone attention looks at

All take --json: one object on stdout and nothing else (but for attention_readout).
"""
