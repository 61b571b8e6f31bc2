"""Import of users, events and lists from files: in constant memory, idempotent, resumable."""
