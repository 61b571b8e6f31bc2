"""A TCP proxy for MongoDB that breaks a connection just before it would return the answer to a command."""

from __future__ import annotations

import select
import socket
import threading


class Cutting:
    """Forward bytes to a port on loopback, and drop the next `cuts` answers to commands named `command`."""

    def __init__(self, target: int, command: str) -> None:
        self._target = target
        self._mark = f"\x02{command}\0".encode()
        self.cuts = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._pass, args=(client,), daemon=True).start()

    def _pass(self, client: socket.socket) -> None:
        try:
            with client, socket.create_connection(("127.0.0.1", self._target)) as server:
                self._pump(client, server)
        except OSError:
            client.close()

    def _pump(self, client: socket.socket, server: socket.socket) -> None:
        named = False
        while True:
            for ready in select.select([client, server], [], [])[0]:
                data = ready.recv(65_536)
                if not data:
                    return
                if ready is client:
                    named = named or self._mark in data
                    server.sendall(data)
                elif named and self.cuts:
                    self.cuts -= 1
                    return
                else:
                    named = False
                    client.sendall(data)

    def close(self) -> None:
        """Accept no further connections."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
