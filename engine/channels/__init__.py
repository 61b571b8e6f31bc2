"""Channels: each a name and a `send`."""
