"""From episodes to gradient steps, for all algorithms: the train batch, minibatches, optimizers, the update."""
