"""Telemetry: the events of the engine as a contract, and who subscribes to them."""
