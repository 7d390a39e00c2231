"""The handle of a run of a server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from millstream import codec
from millstream.approval import arguments_text
from millstream.attach.reading import LogRun
from millstream.client.answers import Request
from millstream.client.follow import RemoteSource
from millstream.client.server import run_path
from millstream.errors import ApprovalError, ServerError, UserError
from millstream.items import ToolApprovalItem
from millstream.log.store import RunRecord
from millstream.run import mail
from millstream.stream.filter import EVERYTHING

if TYPE_CHECKING:
    from millstream.attach.source import Until
    from millstream.client.server import Server
    from millstream.events import CancelMode
    from millstream.items import TResponseInputItem
    from millstream.stream.filter import EntryFilter


class RemoteRun(LogRun):
    """The handle of a run of a server. Comes from `Client.start` and `Client.run`.

    It reads as the handle of `Runner.attach` does: the same events, in the same order, to the same
    ends. Its readers come back by themselves when their connection breaks, and see everything once.
    To leave one, or to close the client, does nothing to the run.

    Any method may also raise a `ServerUnreachableError`, where the server was asked as often as may
    be, an `AccessDeniedError`, and another `ServerError`. A reader that raised one may be asked
    again, and goes on where it stood.

    Args:
        server: where the run is.
        run_id: the run.

    Raises:
        UserError: that is not the id of any run.
    """

    def __init__(self, server: Server, run_id: str) -> None:
        run_path(run_id)
        super().__init__(run_id)
        self._server = server

    async def record(self) -> RunRecord:
        """What the server tells of the run; `request`, `checkpoint`, `options` and the key it does not tell.

        Raises:
            UnknownRunError: there is no such run, or it is somebody else's.
        """
        return record_from(await self._told())

    async def waiting(self) -> list[str]:
        """The ids of the calls that wait for a decision, in order; none of a run that does not wait.

        Raises:
            UnknownRunError: there is no such run.
        """
        waiting: list[Any] = (await self._told()).get("waiting") or []
        return [str(call_id) for call_id in waiting]

    async def _told(self) -> dict[str, Any]:
        asked = Request(method="GET", path=run_path(self._run_id), run_id=self._run_id)
        return await self._server.ask(asked)

    def _source(self, until: Until = "pause", wanted: EntryFilter = EVERYTHING) -> RemoteSource:
        return RemoteSource(self._server, self._run_id, until, wanted)

    # --- acting ------------------------------------------------------------------------------

    async def cancel(self, mode: CancelMode | Literal["immediate"] = "immediate") -> None:
        """Stop the run. May be said any number of times, also to a run that has ended.

        Returns when the server has it; the run's end says when it was done.

        Args:
            mode: as of `RunResultStreaming.cancel`: "now" (also spelled "immediate"), "after_tool" or
                "after_turn".

        Raises:
            UserError: no such mode.
            UnknownRunError: there is no such run.
        """
        mail.cancel_command(mode)  # says what is wrong with it
        await self._post("/cancel", {"mode": "now" if mode == "immediate" else mode})

    async def send(self, message: str | list[TResponseInputItem], when: CancelMode = "now") -> None:
        """Give the run more input. Returns when the server has it; `input.added` says when its model gets it.

        Where the connection breaks before the server has answered, nobody knows whether it has it: that
        is a `ServerUnreachableError`, and is not sent again.

        Args:
            message: a message of the user, or a list of input items.
            when: as of `RunResultStreaming.send`: "now", "after_tool" or "after_turn".

        Raises:
            UserError: no such moment, nothing to send, or the run is over.
            InputItemError: it is no input that models take.
            UnknownRunError: there is no such run.
        """
        if not message:
            raise UserError(f"send({message!r}): there is nothing to send.")
        mail.send_command(message, when)
        await self._post("/input", {"input": message, "when": when}, repeatable=False)

    async def approve(
        self,
        approval_item: ToolApprovalItem | str,
        always_approve: bool = False,
        *,
        arguments: Mapping[str, Any] | str | None = None,
    ) -> None:
        """Let a call that waits run. The server goes on with the run when nothing waits any more.

        Args:
            approval_item: the call: one of the result's `interruptions`, or its call id.
            always_approve: all later calls of that tool by that agent too, in this run.
            arguments: what the tool gets in place of the model's own arguments: a JSON object, or its
                text. The history keeps the call as the model made it.

        Raises:
            ApprovalError: no such call waits, or somebody decided over it in another way before.
            UnknownRunError: there is no such run.
        """
        body: dict[str, Any] = {"approved": True, "always": always_approve}
        if arguments is not None:
            body["arguments"] = codec.decode(arguments_text(arguments))
        await self._decide(approval_item, body)

    async def reject(
        self,
        approval_item: ToolApprovalItem | str,
        always_reject: bool = False,
        *,
        rejection_message: str | None = None,
    ) -> None:
        """Answer a call that waits without running it. The server goes on with the run when nothing waits any more.

        Args:
            approval_item: the call: one of the result's `interruptions`, or its call id.
            always_reject: all later calls of that tool by that agent too, in this run.
            rejection_message: what the model is told.

        Raises:
            ApprovalError: no such call waits, or somebody decided over it in another way before.
            UnknownRunError: there is no such run.
        """
        body: dict[str, Any] = {"approved": False, "always": always_reject}
        if rejection_message is not None:
            body["message"] = rejection_message
        await self._decide(approval_item, body)

    async def _decide(self, item: ToolApprovalItem | str, body: dict[str, Any]) -> None:
        call_id: Any = item.call_id if isinstance(item, ToolApprovalItem) else item
        if not isinstance(call_id, str) or not call_id:
            raise ApprovalError(
                f"To decide over a call takes one of the result's interruptions, or a call id, not {item!r}."
            )
        # Not repeatable: when the server has it the run goes on, and there nothing waits any more.
        await self._post("/decisions", body | {"call_id": call_id}, repeatable=False)

    async def _post(self, rest: str, body: dict[str, Any], *, repeatable: bool = True) -> None:
        path = run_path(self._run_id, rest)
        asked = Request(method="POST", path=path, body=body, run_id=self._run_id)
        await self._server.ask(asked, repeatable=repeatable)

    def __repr__(self) -> str:
        return f"RemoteRun({self._run_id!r} at {self._server.name})"


def record_from(plain: dict[str, Any]) -> RunRecord:
    """The record that a server tells of a run.

    Raises:
        ServerError: it is none.
    """
    try:
        return RunRecord(
            run_id=plain["run_id"],
            agent=plain["agent"],
            status=plain["status"],
            caller=plain.get("caller", ""),
            conversation=plain.get("conversation") or "",
            created=plain["created"],
            updated=plain["updated"],
            epoch=plain["attempts"],
            is_owned=plain.get("is_owned", False),
            last=plain["position"],
            code=plain["code"],
        )
    except (KeyError, TypeError, AttributeError):
        raise ServerError("The server's answer is no record of a run. Is it a Millstream server?") from None
