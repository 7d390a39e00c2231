"""All that the processes of these tests begin with: done once, in the process that they are forked from."""

import asyncio
import os

import openai.types.responses

import millstream.log.redis
from millstream import Runner
from tests.durable import kit
from tests.durable.programs import others, owners, work

__all__ = ["kit", "millstream", "openai", "others", "owners", "work"]


async def _run() -> None:
    # Much is made when it is first needed: schemas, classes for what a model says.
    result = await Runner.run_streamed(work.everything(os.devnull), "Go")
    assert result.final_output == work.OUTPUT


asyncio.run(_run())
