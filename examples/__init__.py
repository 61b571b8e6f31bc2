"""Worked examples of the engine on real data."""
