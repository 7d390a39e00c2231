"""What schemathesis cannot know: which requests of the right form a server refuses all the same."""

from typing import Any

import schemathesis

OF_MEANING = {"unknown_agent", "bad_input", "no_such_position"}


@schemathesis.check
def what_has_the_right_form_is_refused_for_its_meaning_alone(ctx: Any, response: Any, case: Any) -> None:
    is_right = case.meta is not None and case.meta.generation.mode.is_positive
    if is_right and response.status_code in {400, 422}:
        error = response.json()["error"]
        assert error["code"] in OF_MEANING, error
