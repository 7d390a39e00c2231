"""What a server is set up to keep, and in sentences what may be lost there. Pure: from its answers alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from millstream.errors import LogError, LogUnavailableError
from millstream.log.redis.server import Plain, Reply

OLDEST = (7, 0)
"""The oldest Redis that has what the scripts need. Every Valkey says that it is one of 7.2."""

SETTINGS = ("appendonly", "appendfsync", "save", "maxmemory", "maxmemory-policy")

COMMANDS = (Plain(("INFO", "everything")), *(Plain(("CONFIG", "GET", name)) for name in SETTINGS))
"""What a server is asked."""


_NOT_TOLD = (
    "The Redis user of this log may not ask the server what it is set up to keep: runs may be lost, in part or all, "
    "when it is restarted or full. Allow it INFO and CONFIG GET to know."
)


@dataclass(frozen=True, slots=True)
class Found:
    """What a server promises."""

    durability: Literal["memory", "process", "power"]
    warnings: list[str]


def found(replies: Sequence[Reply | LogError]) -> Found:
    """What the answers to `COMMANDS` mean.

    Raises:
        LogUnavailableError: the server cannot be used, and why.
    """
    told, *given = replies
    if isinstance(told, LogError):
        if "NoPermissionError" not in told.message:
            raise told
        return Found("memory", [_NOT_TOLD])  # a user who may do all else that a log does, perhaps
    info = _info(told)
    _refuse_what_cannot_be_used(info)
    # Many a provider has no CONFIG: then INFO tells the greater part.
    settings = {
        name: bytes(reply[1]).decode()
        for name, reply in zip(SETTINGS, given, strict=True)
        if not isinstance(reply, LogError) and len(reply) == 2
    }
    durability, warnings = _persistence(info, settings)
    return Found(durability, [*warnings, *_eviction(info, settings), *_replication(info)])


def _refuse_what_cannot_be_used(info: dict[str, str]) -> None:
    version = info.get("redis_version", "0")
    if tuple(int(part) for part in version.split(".")[:2] if part.isdigit()) < OLDEST:
        raise LogUnavailableError(f"A log needs Redis 7 or newer, or Valkey; this server is Redis {version}.")
    if info.get("cluster_enabled") == "1":
        raise LogUnavailableError(
            "The Redis server is part of a cluster, which a log cannot use: "
            "take a single server, or a primary with replicas."
        )
    if info.get("role") == "slave" and info.get("slave_read_only", "1") == "1":
        raise LogUnavailableError(
            "The Redis server is a read-only replica: give the log the address of its primary."
        )


def _persistence(
    info: dict[str, str], settings: dict[str, str]
) -> tuple[Literal["memory", "process", "power"], list[str]]:
    if info.get("aof_enabled") == "1":
        if info.get("aof_last_write_status", "ok") != "ok":
            return "memory", ["The Redis server cannot write to its append-only file at the moment."]
        fsync = settings.get("appendfsync")
        if fsync == "always":
            return "power", []
        if fsync == "no":
            return "process", [
                "Redis leaves it to the operating system when its append-only file reaches the disk "
                "(appendfsync no): a loss of power may lose the last half minute of every run. "
                "Set appendfsync always to lose nothing."
            ]
        # Not a loss of power alone: while its disk is slow, a server puts off writing, and answers.
        return "process", [
            "Redis writes its append-only file once a second (appendfsync everysec): when its machine loses power, or it "
            "is killed while its disk is slow, the last second or two of every run may be lost. "
            "Set appendfsync always to lose nothing."
        ]
    saves = settings.get("save", "")
    if saves.strip():
        return "memory", [
            "Redis writes snapshots only (appendonly no): when it is killed or restarted, every run may lose what "
            f"came after the last snapshot (save {saves}). Set appendonly yes to keep it."
        ]
    if "save" in settings:
        return "memory", [
            "Redis keeps nothing on its disk (appendonly no, no snapshots): when it is restarted, all runs are lost. "
            "Set appendonly yes to keep them."
        ]
    return "memory", [
        "Redis has no append-only file (aof_enabled 0), and does not tell whether it writes snapshots: when it is "
        "restarted, runs may be lost in part or all. Set appendonly yes to keep them."
    ]


def _eviction(info: dict[str, str], settings: dict[str, str]) -> list[str]:
    policy = settings.get("maxmemory-policy") or info.get("maxmemory_policy", "noeviction")
    limit = settings.get("maxmemory") or info.get("maxmemory", "0")
    if policy == "noeviction":
        return []
    when = "when its memory is full" if limit != "0" else "once it is given a maxmemory"
    return [
        f"Redis may throw away any part of any run {when} (maxmemory-policy {policy}). Set it to noeviction: "
        "then a full server refuses what is new, and says so."
    ]


def _replication(info: dict[str, str]) -> list[str]:
    if info.get("connected_slaves", "0") == "0":
        return []
    return [
        "The Redis server has replicas, which it does not wait for: if one of them takes its place, "
        "the last events that were written may be lost."
    ]


def _info(reply: Reply) -> dict[str, str]:
    lines = bytes(reply).decode("utf-8", "replace").splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line and not line.startswith("#"))
