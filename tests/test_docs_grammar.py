"""The page of the grammar is the grammar: no clause and no event is missing there, and none is invented."""

import re
from pathlib import Path

from millstream.events import EVENT_TYPES
from millstream.stream.grammar import CLAUSES

PAGE = (Path(__file__).parents[1] / "docs" / "grammar.md").read_text()


def test_the_page_has_every_clause_in_its_words() -> None:
    rows = re.findall(r"^\| (\w+) \| `(\w+)` \| (.+) \|$", PAGE, re.MULTILINE)

    assert [(family, name, says.replace("`", "")) for family, name, says in rows] == [
        (clause.family, clause.name, clause.says) for clause in CLAUSES.values()
    ]


def test_the_notation_has_every_event_and_says_what_each_of_its_words_is() -> None:
    (notation,) = re.findall(r"^```ebnf\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    rules = dict(re.findall(r"^(\w+)\s*= (.*?) ;$", notation, re.MULTILINE))
    used = re.sub(r'"[^"]*"|\?[^?]*\?', "", " ".join(rules.values()))

    assert set(re.findall(r'"([^"]+)"', notation)) == EVENT_TYPES.keys()
    assert set(re.findall(r"\w+", used)) | {"run"} == rules.keys()
