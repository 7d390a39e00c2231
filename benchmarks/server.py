"""A model server that answers every request with the same stream, as fast as it can: one HTTP chunk per event.

python server.py openai|compatible DELTAS        prints its port
"""

import asyncio
import json
import sys


def frames(deltas: int, *, openai: bool) -> list[bytes]:
    made: list[bytes] = []

    def add(kind: str, **fields: object) -> None:
        event = {"type": kind, **fields, "sequence_number": len(made)}
        made.append(f"event: {kind}\ndata: {json.dumps(event, separators=(',', ':'))}\n\n".encode())

    response = {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "model": "m",
        "status": "in_progress",
        "output": [],
        "tools": [],
        "tool_choice": "auto",
        "parallel_tool_calls": True,
    }
    place = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    extra = {"logprobs": [], "obfuscation": "aXb3kQ9z"} if openai else {}
    done = {"logprobs": []} if openai else {}
    message = {"id": "msg_1", "type": "message", "role": "assistant", "status": "in_progress", "content": []}
    words = [f"word{i} " for i in range(deltas)]
    part = {"type": "output_text", "text": "".join(words), "annotations": [], **done}

    add("response.created", response=response)
    add("response.in_progress", response=response)
    add("response.output_item.added", output_index=0, item=message)
    add(
        "response.content_part.added",
        **place,
        part={"type": "output_text", "text": "", "annotations": [], **done},
    )
    for word in words:
        add("response.output_text.delta", **place, delta=word, **extra)
    add("response.output_text.done", **place, text=part["text"], **done)
    add("response.content_part.done", **place, part=part)
    message = {**message, "status": "completed", "content": [part]}
    add("response.output_item.done", output_index=0, item=message)
    usage = {
        "input_tokens": 8,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": deltas,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": deltas + 8,
    }
    add(
        "response.completed",
        response={**response, "status": "completed", "output": [message], "usage": usage},
    )
    return made


async def main(payload: str, deltas: int) -> None:
    chunks = [b"%x\r\n%b\r\n" % (len(f), f) for f in frames(deltas, openai=payload == "openai")]
    blocks = [b"".join(chunks[i : i + 256]) for i in range(0, len(chunks), 256)]

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = head.partition(b"content-length:")[2].split(b"\r\n")[0]
                await reader.readexactly(int(length or 0))
                writer.write(
                    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
                )
                for block in blocks:
                    writer.write(block)
                    await writer.drain()
                writer.write(b"0\r\n\r\n")
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
