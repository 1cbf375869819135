"""Callbacks that listen to a sweep and write its results: CSV and JSON files, W&B, TensorBoard."""
