"""Import users, events and lists from files in constant memory; an import is idempotent and resumable."""
