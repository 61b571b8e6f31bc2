"""The delivery of messages: compose, mark, send, settle, and recover what a dead sender left."""
