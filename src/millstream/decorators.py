"""Decorators under one roof, as the OpenAI Agents SDK has them."""

from __future__ import annotations

from millstream.tool import tool

__all__ = ["tool"]
