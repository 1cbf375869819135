"""Worlds of the SISL family (Gupta, Egorov, Kochenderfer 2017), batched: equal to PettingZoo's, and much faster."""
