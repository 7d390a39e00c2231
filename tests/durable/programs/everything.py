"""All that the processes of these tests begin with: done once, in the process that they are forked from."""

import asyncio
import os

import openai.types.responses  # noqa: F401  # read lazily else, a second in each

import millstream.log.redis
import millstream.log.sqlite
import tests.durable.kit
import tests.durable.programs.others
import tests.durable.programs.owners  # noqa: F401
from millstream import Runner
from tests.durable.programs import work


async def _run() -> None:
    # Much is made when it is first needed: schemas, classes for what a model says.
    result = await Runner.run_streamed(work.everything(os.devnull), "Go")
    assert result.final_output == work.OUTPUT


asyncio.run(_run())
