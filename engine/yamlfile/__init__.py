"""YAML with places: nodes that know line and column, the scalars of our files, and models that tell mistakes."""
