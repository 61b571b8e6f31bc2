"""What MongoDB holds: a module for each collection, the named queries with their indexes, and the client."""
