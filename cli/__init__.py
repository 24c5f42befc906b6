"""The command ``hvabi``: one file per command, no logic of its own."""
