"""Compat: the module paths of the OpenAI Agents SDK, held against those it really has."""

import importlib
import json
import os
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import millstream
from millstream import compat
from millstream.errors import UserError
from tests.differential.peer import PYTHON
from tests.support.agents_name import agents_as_before

# Prints, by path below `agents`, the public names that each module of the SDK offers or defines.
TELL = """
import agents, importlib, inspect, json, pkgutil
told = {}
walk = pkgutil.walk_packages(agents.__path__, "agents.", onerror=lambda name: None)
for name in ["agents", *(found.name for found in walk)]:
    path = name.partition(".")[2]
    if any(part.startswith("_") for part in path.split(".")) or path.startswith(
        ("run_internal", "sandbox", "extensions.experimental")
    ):
        continue
    told[path] = []
    try:
        module = importlib.import_module(name)
    except ImportError:  # needs a package that is not there
        continue
    offered = getattr(module, "__all__", None) or [
        key for key, value in vars(module).items() if getattr(value, "__module__", None) == name
    ]
    told[path] = [key for key in offered if not key.startswith("_") and not inspect.ismodule(vars(module).get(key))]
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def of_the_sdk() -> dict[str, list[str]]:
    if not PYTHON.exists():
        pytest.fail("`make .venv-peer/.peer` makes the environment that has the SDK.", pytrace=False)
    told = subprocess.run([PYTHON, "-c", TELL], capture_output=True, check=True, timeout=50)
    return json.loads(told.stdout)


@pytest.fixture
def agents() -> Iterator[None]:
    """`import agents` is this library, for the time of a test."""
    with agents_as_before():
        compat.install()
        yield


def there(path: str) -> Any:
    return importlib.import_module(f"millstream.compat.{path}".rstrip("."))


# --- the table --------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("path", compat.PATHS)
def test_the_sdk_has_every_path(path: str, of_the_sdk: dict[str, list[str]]) -> None:
    assert path in of_the_sdk


@pytest.mark.slow
@pytest.mark.parametrize("path", [path for path in compat.PATHS if path])
def test_a_path_has_every_name_of_the_sdk_that_this_library_has(
    path: str, of_the_sdk: dict[str, list[str]]
) -> None:
    module = there(path)
    lacks = [name for name in of_the_sdk[path] if not hasattr(module, name)]

    assert not [name for name in lacks if hasattr(millstream, name)]


@pytest.mark.slow
def test_no_path_is_left_out_whose_names_are_here(of_the_sdk: dict[str, list[str]]) -> None:
    left_out = {
        path: here
        for path, names in of_the_sdk.items()
        if path not in compat.PATHS and (here := [name for name in names if name in millstream.__all__])
    }

    assert not left_out, "millstream.compat.PATHS needs a line for each of these"


@pytest.mark.parametrize("path", [path for path, sources in compat.PATHS.items() if sources and path])
def test_a_path_has_the_very_objects(path: str) -> None:
    module = there(path)

    for name in dir(module):
        found = getattr(module, name)
        assert found is getattr(millstream, name, found) or isinstance(found, types.ModuleType), name


# --- imports ----------------------------------------------------------------------------------


def test_paths_stand_below_compat_without_installing_anything() -> None:
    import millstream.compat.models.interface as interface  # pyright: ignore[reportMissingImports]
    from millstream.compat.items import ItemHelpers  # pyright: ignore[reportMissingImports]

    assert ItemHelpers is millstream.ItemHelpers
    assert interface.Model is millstream.Model
    assert compat.models.interface is interface  # pyright: ignore[reportAttributeAccessIssue]
    assert "agents" not in sys.modules


def test_compat_itself_stands_for_agents_itself() -> None:
    from millstream.compat import Agent, install  # pyright: ignore[reportAttributeAccessIssue]

    names: dict[str, Any] = {}
    exec("from millstream.compat import *", names)

    assert Agent is names["Agent"] is millstream.Agent
    assert install is compat.install
    assert "Any" not in names
    with pytest.raises(ImportError, match=r"no millstream.compat.Agnt, and none is planned"):
        exec("from millstream.compat import Agnt")


@pytest.mark.usefixtures("agents")
def test_agents_is_this_library_once_it_is_installed() -> None:
    import agents  # pyright: ignore[reportMissingImports]

    assert agents.Agent is millstream.Agent
    assert agents.handoff is millstream.handoff
    assert agents.tool.FunctionTool is millstream.FunctionTool
    assert agents.extensions.handoff_filters.remove_all_tools
    assert agents.models.openai_responses.OpenAIResponsesModel is millstream.OpenAIResponsesModel
    assert "millstream" in (agents.__doc__ or "").lower()
    assert {"Agent", "Runner"} <= set(dir(agents))


@pytest.mark.usefixtures("agents")
def test_a_program_that_looks_at_the_library_itself_finds_it() -> None:
    import agents  # pyright: ignore[reportMissingImports]
    from agents.logger import logger  # pyright: ignore[reportMissingImports]
    from agents.tracing import set_tracing_disabled  # pyright: ignore[reportMissingImports]
    from agents.version import __version__  # pyright: ignore[reportMissingImports]

    assert agents.__version__ == __version__ == millstream.__version__
    assert agents.enable_verbose_stdout_logging is millstream.enable_verbose_stdout_logging
    assert agents.set_tracing_disabled is set_tracing_disabled
    assert agents.tracing.span_data.SpanData is millstream.SpanData
    assert logger.name == "millstream"


@pytest.mark.usefixtures("agents")
def test_a_star_gives_all_names() -> None:
    names: dict[str, Any] = {}

    exec("from agents import *\nfrom agents.items import *", names)

    assert names["Runner"] is millstream.Runner
    assert names["ItemHelpers"] is millstream.ItemHelpers


def test_installing_twice_is_installing_once(agents: None) -> None:
    import agents as first  # pyright: ignore[reportMissingImports]

    compat.install()

    assert sys.modules["agents"] is first


def test_an_sdk_that_is_imported_already_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    sdk = types.ModuleType("agents")
    sdk.__file__ = "/somewhere/agents/__init__.py"
    monkeypatch.setitem(sys.modules, "agents", sdk)

    with pytest.raises(UserError, match=r"imported already, from /somewhere.*before the first import"):
        compat.install()

    assert compat._FINDER.roots == {"millstream.compat"}


@pytest.mark.usefixtures("agents")
@pytest.mark.parametrize(
    ("statement", "name", "says"),
    [
        (
            "from agents.tracing.processors import BackendSpanExporter",
            "agents.tracing.processors.BackendSpanExporter",
            "exporting traces to OpenAI.*, which are not planned",
        ),
        (
            "from agents.memory import OpenAIConversationsSession",
            "agents.memory.OpenAIConversationsSession",
            "other stores of conversations, which are not planned",
        ),
        (
            "from agents.extensions.memory.dapr_session import DaprSession",
            "agents.extensions.memory.dapr_session",
            "other stores of conversations, which",
        ),
        (
            "from agents.extensions.visualization import draw_graph",
            "agents.extensions.visualization",
            "drawings of agents, which",
        ),
        (
            "from agents.extensions.tool_output_trimmer import ToolOutputTrimmer",
            "agents.extensions.tool_output_trimmer",
            "trimmers of tool outputs, which",
        ),
        (
            "from agents.extensions.models.any_llm_model import AnyLLMModel",
            "agents.extensions.models.any_llm_model",
            "other adapters of models, which",
        ),
        (
            "from agents import MCPToolApprovalRequest",
            "agents.MCPToolApprovalRequest",
            "approvals of hosted MCP tools, which are not in this version",
        ),
        (
            "from agents.tool import ShellTool",
            "agents.tool.ShellTool",
            "tool search, .* which are not planned",
        ),
        ("import agents.voice", "agents.voice", "voice, realtime and sandboxes, which are not planned"),
        ("from agents.voice import VoicePipeline", "agents.voice", "voice, realtime and sandboxes, which"),
        ("import millstream.compat.voice", "millstream.compat.voice", "voice, realtime and sandboxes, which"),
    ],
)
def test_what_is_not_there_says_whether_it_is_planned_and_what_to_do(
    statement: str, name: str, says: str
) -> None:
    with pytest.raises(
        ImportError, match=rf"Millstream has no {name}: it belongs to {says}.*\. Instead: "
    ) as caught:
        exec(statement)

    assert caught.value.name == name


@pytest.mark.usefixtures("agents")
@pytest.mark.parametrize("module", ["agents", "agents.items", "millstream.compat.items"])
def test_a_name_that_nobody_knows_may_be_misspelt(module: str) -> None:
    with pytest.raises(
        ImportError, match=rf"no {module}\.NothingLikeThat, and none is .*dir\({module}\)"
    ) as caught:
        exec(f"from {module} import NothingLikeThat")

    assert caught.value.name == f"{module}.NothingLikeThat"


@pytest.mark.slow
def test_of_every_name_that_the_sdk_offers_and_that_is_not_here_more_is_said_than_that(
    of_the_sdk: dict[str, list[str]],
) -> None:
    missing = [name for name in of_the_sdk[""] if not hasattr(millstream, name)]

    assert [name for name in missing if "Instead: " not in compat._lacking(f"millstream.compat.{name}")] == []


def test_the_page_says_the_same_of_what_is_absent(root: Path) -> None:
    page = (root / "docs" / "coming-from-openai-agents.md").read_text().partition("## Not here")[2]
    rows = [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("| ")]
    said = {
        what: when.startswith("not yet") for what, when, *_ in rows if when.startswith(("not yet", "never"))
    }

    for absent in compat.ABSENT:
        assert [planned for what, planned in said.items() if what.startswith(absent.what)] == [
            absent.planned
        ], absent


@pytest.mark.usefixtures("agents")
def test_what_the_sdk_has_only_by_way_of_its_own_imports_and_programs_take_from_there_is_there() -> None:
    from agents.model_settings import Reasoning  # pyright: ignore[reportMissingImports, reportUnknownVariableType]

    settings = millstream.ModelSettings(reasoning=Reasoning(effort="low"))
    assert settings.to_json_dict()["reasoning"]["effort"] == "low"


@pytest.mark.usefixtures("agents")
def test_what_is_not_there_can_be_asked_for() -> None:
    import agents.items  # pyright: ignore[reportMissingImports]

    assert not hasattr(agents, "NothingLikeThat")
    assert not hasattr(agents.items, "copy")
    assert getattr(agents.items, "_private", None) is None
    with pytest.raises(AttributeError, match=r"no agents\.NothingLikeThat, and none is planned"):
        agents.NothingLikeThat  # noqa: B018


# --- a program --------------------------------------------------------------------------------

PROGRAM = '''\
import asyncio
from dataclasses import dataclass

from openai.types.responses import ResponseTextDeltaEvent

from agents import (
    Agent,
    HandoffInputData,
    ItemHelpers,
    ModelSettings,
    RunConfig,
    RunContextWrapper,
    Runner,
    function_tool,
    handoff,
)
from agents.exceptions import MaxTurnsExceeded
from agents.extensions import handoff_filters
from agents.extensions.handoff_prompt import prompt_with_handoff_instructions
from agents.items import ToolCallItem
from agents.models.interface import Model
from agents.result import RunResultStreaming
from agents.stream_events import RunItemStreamEvent
from agents.testing import ScriptedModel, assistant_message, function_call
from agents.tool_context import ToolContext


@dataclass
class Shop:
    stock: dict[str, int]


@function_tool
def in_stock(ctx: ToolContext[Shop], what: str) -> str:
    """How many of a thing there are."""
    return f"{ctx.tool_name}: {ctx.context.stock[what]}"


def without_earlier_tools(data: HandoffInputData) -> HandoffInputData:
    return data.clone(pre_handoff_items=handoff_filters.remove_all_tools(data).pre_handoff_items)


def build() -> Agent[Shop]:
    closing = Agent[Shop](name="Closing", model=ScriptedModel([[assistant_message("Bye")]]))
    steps = [
        [assistant_message("Let me look."), function_call("in_stock", {"what": "tea"}, call_id="c1")],
        [function_call("transfer_to_closing", {}, call_id="c2")],
    ]
    return Agent[Shop](
        name="Counter",
        instructions=prompt_with_handoff_instructions("You sell."),
        tools=[in_stock],
        handoffs=[handoff(closing, input_filter=without_earlier_tools)],
        model=ScriptedModel(steps),
        model_settings=ModelSettings(temperature=0),
    )


async def main() -> None:
    assert isinstance(build().model, Model)
    result: RunResultStreaming = Runner.run_streamed(
        build(), "Tea?", context=Shop({"tea": 3}), run_config=RunConfig(workflow_name="shop")
    )
    async for event in result.stream_events():
        if event.type == "raw_response_event" and isinstance(event.data, ResponseTextDeltaEvent):
            print(event.data.delta, end="")
        elif isinstance(event, RunItemStreamEvent):
            print(f"[{event.name}]")
            if isinstance(event.item, ToolCallItem):
                print(event.item.call_id)
        elif event.type == "agent_updated_stream_event":
            print("->", event.new_agent.name)
    print(ItemHelpers.text_message_outputs(result.new_items), result.final_output)
    try:
        await Runner.run(build(), "Tea?", context=Shop({"tea": 3}), max_turns=1)
    except MaxTurnsExceeded as error:
        print(type(error).__name__, len(error.run_data.new_items))


asyncio.run(main())
'''


@pytest.mark.slow
def test_a_program_of_the_sdk_runs_unchanged_behind_two_lines(tmp_path: Path) -> None:
    theirs, ours = tmp_path / "theirs.py", tmp_path / "ours.py"
    theirs.write_text(PROGRAM)
    ours.write_text(f"import millstream.compat\nmillstream.compat.install()\n{PROGRAM}")

    printed = [
        subprocess.run(
            [python, file],
            env=os.environ | {"OPENAI_AGENTS_DISABLE_TRACING": "1"},
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
        )
        for python, file in ((PYTHON, theirs), (sys.executable, ours))
    ]

    assert [run.stderr for run in printed] == ["", ""]
    assert printed[1].stdout == printed[0].stdout
    assert "MaxTurnsExceeded" in printed[1].stdout
