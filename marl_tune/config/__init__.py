"""What a user may type: the schema of every key, Hydra's composition, the search space, a trial's overrides.

Needs neither torch nor ray, and builds no world.
"""
