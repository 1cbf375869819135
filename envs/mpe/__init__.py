"""The Multi-Agent Particle Environments (MPE), batched. They equal PettingZoo's step by step, and are much faster."""
