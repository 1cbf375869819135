"""From a world and its modules to episodes: env runners, rollouts, fragments, episode metrics.

Knows no algorithm and no sweep.
"""
