"""One connection: what there is of an answer goes out at once, from a socket that was bound before, too."""

from __future__ import annotations

import asyncio
import socket

import uvicorn

from retr.cli.serve import _listening
from retr.serve.protocol import TimedProtocol


def test_no_part_of_an_answer_waits_for_a_confirmation():
    seen = []

    class Seen(TimedProtocol):
        def connection_made(self, transport):
            super().connection_made(transport)
            seen.append(transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"whole"})

    async def ask():
        server = uvicorn.Server(uvicorn.Config(app, http=Seen, lifespan="off", log_level="critical"))
        with _listening("127.0.0.1", 0) as bound:
            running = asyncio.create_task(server.serve(sockets=[bound]))
            reader, writer = await asyncio.open_connection("127.0.0.1", bound.getsockname()[1])
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            answer = await reader.read()
            writer.close()
            server.should_exit = True
            await running
        return answer

    assert b"whole" in asyncio.run(ask())
    assert seen == [1]
