"""Opponents: the pool, ratings, whom a learner plays and when a copy of it is frozen."""
