"""Measurements that the README and the changelog quote; each prints what it measured and on which machine."""
