"""The predicate language: one field catalogue, one tree, one compiler per target."""
