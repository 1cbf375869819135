"""An environment, a module and a callback for marl_tune."""
