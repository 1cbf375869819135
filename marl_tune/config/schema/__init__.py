"""The dataclasses of every key, one file a group of `conf/`."""
