"""The client: follows the runs of a server, and comes back by itself."""

from millstream.client.sse import SseEvent, SseParser

__all__ = ["SseEvent", "SseParser"]
