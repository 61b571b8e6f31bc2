"""The actors: a module for each kind of message, each of them a call of one use case."""
