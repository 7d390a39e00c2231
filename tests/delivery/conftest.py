"""What a server imports on its way is imported here: importing reads files, which no loop may wait for."""

import aiohttp  # noqa: F401
import openai.types.responses  # noqa: F401
