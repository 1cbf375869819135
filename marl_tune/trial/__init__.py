"""One trial: the Tune Trainable, its checkpoints, and its followers (self-play, breakthroughs, curriculum, ...)."""
