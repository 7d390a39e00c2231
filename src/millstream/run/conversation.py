"""What the model's server remembers of a run: what it need not be sent again."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Conversation:
    """What the model's server remembers of earlier calls, where it is asked to.

    With `tracks`, a call sends only what the server has not seen.
    """

    previous_response_id: str | None = None
    conversation_id: str | None = None
    auto: bool = False
    known_items: int = 0
    """How many of the run's items the server has seen."""
    knows_input: bool = False
    """Whether it has seen the run's input."""

    @property
    def tracks(self) -> bool:
        """Whether the server keeps the history."""
        return self.auto or self.previous_response_id is not None or self.conversation_id is not None

    def answered(self, response_id: str | None, items: int) -> None:
        """The model answered what it was sent; with what it said, the run has `items` items."""
        if not self.tracks:
            return
        if self.conversation_id is None:
            if response_id is None:
                return  # nothing to go on from: what it was sent is sent again
            self.previous_response_id = response_id
        self.known_items = items
        self.knows_input = True
