"""The ports of the use cases: small protocols, written by the consumer, a module for each kind of store."""
