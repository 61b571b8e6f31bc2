"""The user cache in Redis: its layout, its scripts, its loader, and a connection that may be away."""
