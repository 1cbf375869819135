"""What marl_tune is measured against: stock RLlib, a PPO by hand in one file, and the floor under all of them."""
