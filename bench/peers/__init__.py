"""Systems that do the same, driven with the same users, text and sink, in turns with ours."""
