"""The gate: bulk work gives way to a store's other users."""
