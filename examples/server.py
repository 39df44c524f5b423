"""Ask a server that `retr serve` runs, waiting or not: ``python examples/server.py http://127.0.0.1:7860 x.png``."""

from __future__ import annotations

import asyncio
import sys

from retr import AsyncClient, Client, Hits, RetrError


def main(url: str, picture: str) -> None:
    """Ask for the neighbours of a picture."""
    with Client(url) as client:
        hits: Hits = client.search(image=picture, k=5)
        print(client.index, hits.ids)


async def at_once(url: str, pictures: list[str]) -> None:
    """Ask with several pictures at once."""
    async with AsyncClient(url) as client:
        answers = await asyncio.gather(*(client.search(image=picture, k=5) for picture in pictures))
        print(len(answers), "answers")


if __name__ == "__main__":
    try:
        main(sys.argv[1], sys.argv[2])
        asyncio.run(at_once(sys.argv[1], sys.argv[2:]))
    except RetrError as error:
        sys.exit(str(error))
