"""Delivery: a run on its way to clients. Entries become messages, messages frames, frames bytes."""

from millstream.delivery.sse import SSE_HEADERS, SseApp, SseFrames, sse_app, sse_frames, to_sse
from millstream.delivery.websocket import to_websocket

__all__ = ["SSE_HEADERS", "SseApp", "SseFrames", "sse_app", "sse_frames", "to_sse", "to_websocket"]
