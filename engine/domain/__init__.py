"""The vocabulary: nouns, keys and states, from the standard library only."""
