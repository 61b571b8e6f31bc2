"""Other systems for the same task, driven with the same users, text and sink, in turns with ours."""
