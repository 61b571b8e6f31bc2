"""One finished mail: addresses, MIME, plain text, preheader, and what is the same for all users of a message."""
