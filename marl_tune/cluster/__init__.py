"""Ray, torch and the machine as the framework needs them, and every patch of a pinned library."""
