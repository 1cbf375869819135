"""The Multi-Agent Particle Environments (MPE), batched: equal to PettingZoo's step by step, and much faster."""
