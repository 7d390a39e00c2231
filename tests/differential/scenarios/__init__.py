"""The scenarios, by subject. `load` enters all of them into `SCENARIOS`."""

import importlib
from pathlib import Path


def load() -> None:
    """Import every module of this folder."""
    for file in sorted(Path(__file__).parent.glob("[!_]*.py")):
        importlib.import_module(f"tests.differential.scenarios.{file.stem}")
