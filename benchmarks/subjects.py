"""The subjects: each streams answers for a line of its standard input, and prints its CPU seconds for one.

python subjects.py NAME PORT
"""

import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Callable

Stream = Callable[[], Awaitable[int]]
"""Streams one answer; returns how many characters or events it saw, so that no one can see none."""


async def floor(port: int) -> Stream:
    """A raw socket: chunks undone, events split."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)

    async def stream() -> int:
        writer.write(b"POST /v1/responses HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}")
        await reader.readuntil(b"\r\n\r\n")
        rest, events, ended = b"", 0, False
        while not ended:
            data = rest + await reader.read(1 << 16)
            ended = data.endswith(b"0\r\n\r\n")  # which may come by itself
            *pieces, rest = data.split(b"\n\n\r\n")
            events += len(pieces)
        return events

    return stream


async def millstream(port: int) -> Stream:
    """Our run with its default transport."""
    return _millstream(port, {})


async def millstream_own(port: int) -> Stream:
    """Our run with the transport of a client that the user brought."""
    import httpx2

    return _millstream(port, {"http_client": httpx2.AsyncClient()})


def _millstream(port: int, options: dict[str, object]) -> Stream:
    from openai import AsyncOpenAI

    from millstream import Agent, OpenAIResponsesModel, Runner

    client = AsyncOpenAI(api_key="none", base_url=f"http://127.0.0.1:{port}/v1", **options)  # type: ignore[arg-type]
    agent = Agent(name="A", model=OpenAIResponsesModel("m", client))

    async def stream() -> int:
        seen = 0
        async for event in Runner.run_streamed(agent, "Hello").stream_events():
            if event.type == "raw_response_event" and event.data.type == "response.output_text.delta":
                seen += len(event.data.delta)
        return seen

    return stream


async def openai_agents(port: int) -> Stream:
    """The OpenAI Agents SDK, its tracing off."""
    from agents import Agent, OpenAIResponsesModel, Runner, set_tracing_disabled
    from openai import AsyncOpenAI

    set_tracing_disabled(True)
    client = AsyncOpenAI(api_key="none", base_url=f"http://127.0.0.1:{port}/v1")
    agent = Agent(name="A", model=OpenAIResponsesModel("m", client))

    async def stream() -> int:
        seen = 0
        async for event in Runner.run_streamed(agent, "Hello").stream_events():
            if event.type == "raw_response_event" and event.data.type == "response.output_text.delta":
                seen += len(event.data.delta)
        return seen

    return stream


SAMPLE = 0.4
"""CPU seconds of a sample: about what the dearest subject takes for one answer. A core that has
waited is cold, for some milliseconds; a subject that needs no more for an answer would be
measured in nothing else."""

SUBJECTS: dict[str, Callable[[int], Awaitable[Stream]]] = {
    "floor": floor,
    "millstream": millstream,
    "millstream, own transport": millstream_own,
    "openai-agents": openai_agents,
}


async def main(name: str, port: int) -> None:
    stream = await SUBJECTS[name](port)
    for _ in sys.stdin:
        began, used, answers, seen = time.process_time(), 0.0, 0, 0
        while used < SAMPLE:
            seen = await stream()
            answers += 1
            used = time.process_time() - began
        print(used / answers, seen, flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
    sys.stdout.flush()
    os._exit(0)  # the sockets that are still open are not what is measured
