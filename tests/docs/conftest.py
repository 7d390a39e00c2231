"""What pages import on their way is imported here: a test must not depend on who imported it first.

Programs on the pages `await` at their top level, and so make their models, and import
`openai`, on an event loop, where reading files counts as blocking.
"""

import aiohttp  # noqa: F401
import openai.types.responses  # noqa: F401
