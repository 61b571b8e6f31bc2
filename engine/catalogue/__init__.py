"""What a workspace declares: its fields, events and aggregates, the types of their values, and its file."""
