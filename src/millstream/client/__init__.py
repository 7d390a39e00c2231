"""The client: starts, follows and steers the runs of a server, and comes back by itself."""

from millstream.client.client import Client
from millstream.client.run import RemoteRun
from millstream.client.sse import SseEvent, SseParser

__all__ = ["Client", "RemoteRun", "SseEvent", "SseParser"]
