"""From an environment and its modules to episodes: env runners, rollouts, fragments, metrics of episodes.

This package knows no algorithm and no sweep.
"""
