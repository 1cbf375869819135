"""One trial: the Tune Trainable, its checkpoints, and what follows it (curriculum, breakthroughs)."""
