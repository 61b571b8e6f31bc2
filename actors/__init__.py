"""The Dramatiq side: broker, middleware and one thin actor per file."""
