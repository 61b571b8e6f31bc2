"""Telemetry: the engine's events as a contract, and their subscribers."""
