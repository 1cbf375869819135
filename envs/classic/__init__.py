"""Board games of PettingZoo's classic family, batched, and scripted players of them."""
