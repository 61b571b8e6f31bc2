"""`tidegate`: the command line. An error prints at most three lines; `--debug` shows the traceback."""

from __future__ import annotations

import logging
import os
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Annotated, Final

import typer

from engine.cli.context import Call
from engine.cli.helping import Group
from engine.errors import EngineError, WrongCall

BAD_ANSWER = 1
BAD_CALL = 2
UNREACHABLE = 3
INTERRUPTED = 130
STORES = frozenset({"pymongo", "redis", "elasticsearch", "elastic_transport"})
"""Packages whose exceptions mean that a service does not answer; by name, because importing all takes a second."""

PLAINER: Final = {
    "Value error, ": "",
    "Input should be a valid integer, unable to parse string as an integer": "expected a whole number",
}
"""Replacements of pydantic's messages by ones that people understand."""


def _version(requested: bool) -> None:
    if requested:
        from engine.cli.check import versions

        for line in versions():
            typer.echo(line)
        raise typer.Exit


def _main(
    context: typer.Context,
    settings: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The settings file.  [default: conf/settings.yaml]")
    ] = None,
    env: Annotated[str | None, typer.Option("--env", metavar="NAME", help="The environment of that file.")] = None,
    env_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The file with variables.  [default: .env]")
    ] = None,
    given: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="SECTION.KEY=VALUE", help="A setting, which overrides files and variables; repeatable."
        ),
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,  # noqa: ARG001 - read in `main`
    version: Annotated[  # noqa: ARG001 - its callback answers
        bool, typer.Option("--version", callback=_version, is_eager=True, help="The versions of engine and services.")
    ] = False,
) -> None:
    """Lifecycle messaging next to your own product."""
    flags: dict[str, object] = {}
    for text in given or ():
        key, separator, value = text.partition("=")
        if not separator or "." not in key:
            raise WrongCall(f"--set needs SECTION.KEY=VALUE, got {text}")
        flags[key] = value
    context.obj = Call(settings, env, flags, env_file)


def _importing(group: typer.Typer) -> None:
    from engine.cli import import_setting, importing

    importing.mount(group, import_setting.open_import)


def _policy(group: typer.Typer) -> None:
    from engine.cli import policy

    policy.mount(group, _history)


def _history(context: typer.Context) -> list[dict[str, object]]:
    from engine.cli.context import opened

    with opened(context) as application:
        return application.stores.policy_versions.history()


def _module(name: str) -> Callable[[typer.Typer], None]:
    def mount(group: typer.Typer) -> None:
        import_module(f"engine.cli.{name}").mount(group)

    return mount


MOUNTS: Final[dict[Callable[[typer.Typer], None], tuple[str, ...]]] = {
    _module("services"): ("up", "down", "status"),
    _module("process_commands"): ("run", "worker", "feed"),
    _module("check"): ("check", "migrate"),
    _module("init"): ("init",),
    _module("campaign"): ("campaign",),
    _module("explain"): ("explain",),
    _importing: ("import",),
    _policy: ("policy",),
    _module("queue"): ("queue",),
    _module("stats"): ("stats",),
    _module("user"): ("user",),
    _module("clock"): ("clock",),
    _module("logs"): ("logs",),
    _module("gate"): ("gate",),
    _module("map"): ("map",),
    _module("metrics"): ("metrics",),
    _module("web"): ("web",),
    _module("access"): ("access",),
}
"""The functions that add commands, each with the names of its commands."""


def _command_line(arguments: list[str]) -> typer.Typer:
    """Return an app with the called command, or with all commands if the call is not plain, for help and completion.

    A process of the Procfile starts in half the time when it imports only what it needs.
    """
    app = typer.Typer(
        name="tidegate",
        cls=Group,
        help="A campaign engine that a company runs itself.",
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_main)
    word = arguments[0] if arguments else ""
    mounts = [mount for mount, names in MOUNTS.items() if word in names]
    for mount in mounts or MOUNTS:
        mount(app)
    return app


def main() -> None:
    """Run the command of `sys.argv` and exit with its code: 0, 1, 2, 3 or 130."""
    code = run(sys.argv[1:])
    if "pymongo" in sys.modules and "multiprocessing" not in sys.modules and threading.active_count() > 1:
        _leave(code)
    sys.exit(code)


def _leave(code: int) -> None:
    """Exit at once if only daemon threads are left: pymongo's exit handler would wait half a second for one."""
    if all(thread.daemon for thread in threading.enumerate() if thread is not threading.main_thread()):
        logging.shutdown()
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(code)


def run(arguments: list[str]) -> int:
    """Run one command; return its exit code."""
    debug = "--debug" in arguments
    app = _command_line(arguments)
    try:
        code = app(arguments, prog_name="tidegate", standalone_mode=False)
        sys.stdout.flush()  # here, where a full disk can still be reported
        return code if isinstance(code, int) else 0
    except typer.TyperException as error:
        return _misused(error)
    except (typer.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except EngineError as error:
        return _show_error(error, str(error), error.remedy, error.exit_code, debug=debug)
    except BrokenPipeError:  # the reader, e.g. `head`, has read enough
        _silence()
        return BAD_ANSWER
    except OSError as error:
        return _failed(error, debug=debug)
    except Exception as error:
        if type(error).__module__.split(".")[0] not in STORES:
            raise
        from engine.stores.driver_errors import trouble_of

        trouble = trouble_of(error)
        if trouble is None:
            raise
        return _show_error(error, str(trouble), trouble.remedy, trouble.exit_code, debug=debug)


def _failed(error: OSError, *, debug: bool) -> int:
    """Report a refusal of the operating system: a file or a folder, or stdout on a full disk."""
    why = error.strerror or type(error).__name__
    if error.filename is not None:
        return _show_error(
            error, f"{error.filename}: {why}", "check the path and its permissions", BAD_CALL, debug=debug
        )
    _silence()
    return _show_error(error, f"the operating system refused: {why}", "--debug shows where", BAD_ANSWER, debug=debug)


def _silence() -> None:
    """Redirect stdout to the null device, so that the interpreter's exit writes nothing to a broken one."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _misused(error: typer.TyperException) -> int:
    """Report a call that Typer rejects as one of our own errors; a call without a command prints its help."""
    text = error.format_message()
    for theirs, ours in PLAINER.items():
        text = text.replace(theirs, ours)
    context = getattr(error, "ctx", None)
    if "\n" in text:
        sys.stderr.write(f"{text.rstrip()}\n")
    else:
        path = "tidegate" if context is None else context.command_path
        _show_error(error, text, f"{path} --help shows the usage", BAD_CALL, debug=False)
    return BAD_CALL


def _show_error(error: Exception, text: str, remedy: str, code: int, *, debug: bool) -> int:
    if debug:
        traceback.print_exception(error)
    sys.stderr.write(f"tidegate: {text}\n")
    if remedy:
        sys.stderr.write(f"  {remedy}\n")
    return code
