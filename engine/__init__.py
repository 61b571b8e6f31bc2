"""Tidegate's campaign engine: all knowledge about campaigns. It does not import Dramatiq."""

__version__ = "0.2.0"
