"""The SMTP channel: the protocol, the table of replies, connections, and the pool that sends over them."""
