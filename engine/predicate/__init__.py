"""The predicate language: one field catalogue, one tree, a compiler per target."""
