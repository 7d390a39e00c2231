"""The log in Redis: `RedisLog`."""

from millstream.log.redis.store import RedisLog

__all__ = ["RedisLog"]
