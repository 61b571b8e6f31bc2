"""Formats help for people: whole sentences in the list of commands, and words instead of Python's types."""

from __future__ import annotations

import re
from typing import Any, Final

from typer.core import TyperGroup

_WORDS: Final = {"<str>": "<text>", "<int>": "<number>", "<int range>": "<number>", "<float>": "<number>"}
_LIST: Final = re.compile(r"<list\[(.+)\]>")
_WHOLE: Final = 1000
"""Characters of a command's first sentence that its group shows: enough for all of them."""


class Group(TyperGroup):
    """A command group that lists whole sentences and shows option types in words instead of Python's names."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # Typer's own types are private
        """Write the commands, each with its first sentence, in as many lines as it needs."""
        commands = ((name, self.get_command(ctx, name)) for name in self.list_commands(ctx))
        rows = [
            (name, command.get_short_help_str(_WHOLE))
            for name, command in commands
            if command is not None and not command.hidden
        ]
        if rows:
            with formatter.section("Commands"):
                formatter.write_dl(rows)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return the command of that name, with its option types in words."""
        command: Any = super().get_command(ctx, cmd_name)
        for option in command.params if command is not None else ():
            if option.param_type_name == "option" and option.metavar is None:
                option.metavar = in_words(option.display_type(ctx))
        return command


def in_words(shown: str) -> str | None:
    """Return a value's type in words; None if Typer's own name is good enough."""
    match = _LIST.fullmatch(shown)
    if match:
        word = f"<{match[1]}>"
        return f"{_WORDS.get(word, word)}..."
    return _WORDS.get(shown)
