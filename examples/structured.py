"""An answer that is an object: streamed as text, checked at the end."""

import asyncio
import os

from pydantic import BaseModel

from millstream import Agent, Runner
from millstream.testing import ScriptedModel, final_json


class Recipe(BaseModel):
    name: str
    minutes: int
    ingredients: list[str]


SCRIPT = [[final_json({"name": "Porridge", "minutes": 10, "ingredients": ["oats", "water", "salt"]})]]
model = None if os.environ.get("OPENAI_API_KEY") else ScriptedModel(SCRIPT)

agent = Agent(name="Cook", instructions="Invent a recipe.", output_type=Recipe, model=model)


async def main() -> None:
    run = Runner.run_streamed(agent, "Something with oats")
    async for piece in run.text():
        print(piece, end="", flush=True)
    recipe = run.final_output_as(Recipe)
    print(f"\n{recipe.name}: {recipe.minutes} minutes, {', '.join(recipe.ingredients)}")


asyncio.run(main())
