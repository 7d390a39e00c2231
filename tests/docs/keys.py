"""The variables that recipes on the pages take their keys from."""

KEYS = tuple(
    f"{vendor}_API_KEY"
    for vendor in [
        "ANTHROPIC",
        "AZURE_OPENAI",
        "DEEPSEEK",
        "GEMINI",
        "GROQ",
        "MISTRAL",
        "OPENROUTER",
        "TOGETHER",
    ]
)
