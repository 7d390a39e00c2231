"""The command line: `millstream run`, `chat`, `models`, `demo`. Its door is `millstream_cli`, outside the package."""
