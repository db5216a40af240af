"""The version, here and nowhere else: the build reads this line, and every `--version` prints it."""

__version__ = "0.2.0.dev0"
