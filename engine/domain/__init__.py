"""Domain vocabulary: nouns, keys and states. Imports only the standard library."""
