"""Which module acts for which agent: the schemes, the policy map, and facts of the world that both depend on."""
