"""Channels: each has a name and sends finished messages to one provider."""
