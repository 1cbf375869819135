"""How settings are tried: searchers and schedulers of Tune made from `search` and `space`, and when a trial stops."""
