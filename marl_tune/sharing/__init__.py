"""Which module acts for which agent: the sharing schemes, the policy map, and facts of the world."""
