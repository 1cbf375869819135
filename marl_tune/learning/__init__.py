"""From episodes to gradient steps, whatever the algorithm: the train batch, minibatches, optimizers, the update."""
