"""Clusters that lose a node under load: `python -m bench clusters`."""
