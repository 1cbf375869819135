"""One file an algorithm: its loss, its learner, its part of RLlib's config."""
