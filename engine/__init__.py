"""Tidegate: everything that knows about campaigns (no Dramatiq in here)."""

__version__ = "0.1.0"
