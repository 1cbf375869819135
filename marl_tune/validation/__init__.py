"""Rules over several settings, checked before anything starts; each a `ConfigError` with key, value and rule."""
