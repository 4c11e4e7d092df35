"""Runs the graph on this machine."""
