"""The command line: `millstream run`, `chat`, `models`, `check`, `demo`. Its door is `millstream_cli`, outside the package."""
