"""A server for agents: start, follow, resume, stop and decide over runs that outlive their connection. Extra: `server`."""

from millstream.server.access import LOCAL, OPEN, Access
from millstream.server.app import create_app

__all__ = ["LOCAL", "OPEN", "Access", "create_app"]
