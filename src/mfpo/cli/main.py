"""The ``mfpo`` command: find the verb, read its settings, run it, and tell errors plainly."""

from __future__ import annotations

import errno
import os
import select
import sys
import traceback
from collections.abc import Sequence
from itertools import groupby

from mfpo.cli.fields import UsageError
from mfpo.cli.verbs import VERBS
from mfpo.errors import Stopped, UserError, nearest
from mfpo.version import __version__

FAILURE = 1
USAGE = 2
INTERRUPTED = 130  # 128 + SIGINT, as shells count
PIPE_CLOSED = 141  # 128 + SIGPIPE

# What a path given by the user, or a full disk, leads to; any other OSError is a bug and is shown whole.
_USERS_DISK = frozenset(
    {
        errno.EACCES,
        errno.EPERM,
        errno.EROFS,
        errno.ENOSPC,
        errno.EDQUOT,
        errno.ENOTDIR,
        errno.EISDIR,
        errno.EEXIST,
    }
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: The arguments after the program's name; those of the process when None.

    Returns:
        The exit code: 0 when all is done, 1 for an error, 2 for wrong usage, 130 when interrupted.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    try:
        code = _dispatch([argument for argument in arguments if argument != "--debug"])
        sys.stdout.flush()
        return code
    except UserError as error:
        if debug:
            traceback.print_exc()
        print(f"error: {error}", file=sys.stderr)
        return USAGE if isinstance(error, UsageError) else FAILURE
    except KeyboardInterrupt as stop:
        if debug:
            traceback.print_exc()
        again = "interrupted; the same command goes on with what is finished"
        print(stop if isinstance(stop, Stopped) else again, file=sys.stderr)
        return stop.exit_code if isinstance(stop, Stopped) else INTERRUPTED
    except BrokenPipeError:
        if not _stdout_is_closed():
            raise
        # What is left in the buffer would raise again when the interpreter flushes it on exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED
    except OSError as error:
        if debug or error.errno not in _USERS_DISK:
            raise
        print(f"error: {UserError(str(error.strerror), where=str(error.filename or ''))}", file=sys.stderr)
        return FAILURE


def _dispatch(arguments: list[str]) -> int:
    match arguments:
        case []:
            print(_overview(), file=sys.stderr)
            return USAGE
        case ["-h" | "--help" | "help", *_]:
            print(_overview())
            return 0
        case ["--version", *_]:
            print(f"mfpo {__version__}")
            return 0
    name, *rest = arguments
    if name.startswith("-"):
        raise UsageError("expected a verb first", where=name, fix="see `mfpo --help`")
    if name not in VERBS:
        raise UsageError("unknown verb", where=f"mfpo {name}", fix=nearest(name, VERBS))
    verb = VERBS[name]

    from mfpo.cli.flags import parse_config

    try:
        config = parse_config(verb, rest)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 0
    result = verb.function()(config)
    return result if isinstance(result, int) else 0


def _overview() -> str:
    """What ``mfpo --help`` prints."""
    width = max(map(len, VERBS))
    lines = [
        "usage: mfpo VERB [OPTIONS]",
        "",
        "Train vision-language models to describe only what is in the picture.",
    ]
    for group, verbs in groupby(VERBS.values(), key=lambda verb: verb.group):
        lines += ["", f"{group}:", *(f"  {verb.name:<{width}}  {verb.help}" for verb in verbs)]
    lines += [
        "",
        "every verb:",
        "  --help           explain each setting and show its default",
        "  --config F.yaml  read settings from a file; flags override it",
        "  --debug          show the traceback of an error",
        "",
        "mfpo --version prints the version.",
    ]
    return "\n".join(lines)


def _stdout_is_closed() -> bool:
    """Whether the reader of our output went away, as in ``mfpo ... | head``.

    A pipe between processes of our own may break too; that is an error and must be seen.
    """
    try:
        number = sys.stdout.fileno()
    except (OSError, ValueError):
        return False
    if hasattr(select, "poll"):
        poll = select.poll()
        poll.register(number, 0)
        return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))
    return True
