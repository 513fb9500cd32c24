"""Terminate TLS, require a client certificate, and forward to a port without TLS.

python tls_front.py PORT TARGET CERTIFICATE KEY AUTHORITY
python tls_front.py --servers ADDRESS CERTIFICATE KEY AUTHORITY PORT...

The first form serves one port for a target on 127.0.0.1. The second serves ports of 127.0.0.1 for servers that listen
on the same ports of ADDRESS. What these servers send each other comes from ADDRESS, and is forwarded as it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import sys


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy until one side ends."""
    with contextlib.suppress(OSError):
        while block := await reader.read(65536):
            writer.write(block)
            await writer.drain()
    writer.close()


def make_context(certificate: str, key: str, authority: str) -> ssl.SSLContext:
    """Return how TLS is terminated."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    context.load_verify_locations(authority)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


async def serve_port(port: int, target: int, context: ssl.SSLContext) -> None:
    """Serve one port until terminated."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner, outer = await asyncio.open_connection("127.0.0.1", target)
        await asyncio.gather(pump(reader, outer), pump(inner, writer))

    server = await asyncio.start_server(serve, ("127.0.0.1", "127.0.0.2"), port, ssl=context)
    await server.serve_forever()


async def serve_servers(address: str, ports: list[int], context: ssl.SSLContext) -> None:
    """Serve the ports of several servers until terminated."""
    await asyncio.gather(*(_accept(address, port, context) for port in ports))


async def _accept(address: str, port: int, context: ssl.SSLContext) -> None:
    loop, connections = asyncio.get_running_loop(), set()
    listener = socket.create_server(("127.0.0.1", port), backlog=128)
    listener.setblocking(False)
    while True:
        accepted, (peer, _) = await loop.sock_accept(listener)
        task = asyncio.create_task(_forward(accepted, (address, port), None if peer == address else context))
        connections.add(task)
        task.add_done_callback(connections.discard)


async def _forward(accepted: socket.socket, target: tuple[str, int], context: ssl.SSLContext | None) -> None:
    """Forward one connection; without a server behind it, it ends before its handshake, like one that is refused."""
    with contextlib.suppress(OSError), contextlib.closing(accepted):
        source = (target[0], 0) if context is None else None
        inner, outer = await asyncio.open_connection(*target, local_addr=source)
        with contextlib.closing(outer):
            reader = asyncio.StreamReader()
            transport, protocol = await asyncio.get_running_loop().connect_accepted_socket(
                lambda: asyncio.StreamReaderProtocol(reader), accepted, ssl=context
            )
            writer = asyncio.StreamWriter(transport, protocol, reader, asyncio.get_running_loop())
            await asyncio.gather(pump(reader, outer), pump(inner, writer))


async def main(arguments: list[str]) -> None:
    """Serve until terminated."""
    # Some tests let the handshake fail; do not log that.
    asyncio.get_running_loop().set_exception_handler(lambda _loop, _context: None)
    if arguments[0] == "--servers":
        address, certificate, key, authority, *ports = arguments[1:]
        await serve_servers(address, [int(port) for port in ports], make_context(certificate, key, authority))
    else:
        port, target, *files = arguments
        await serve_port(int(port), int(target), make_context(*files))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
