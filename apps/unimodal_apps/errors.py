"""What goes wrong, in one line on the error stream: exit code 2 for bad input, 1 for what the machine cannot do."""

import os
import sys
from typing import Any

import typer
from typer.core import TyperGroup

BAD_INPUT, FAILED, INTERRUPTED = 2, 1, 130


class OneLineErrors(TyperGroup):
    """A group of commands that ends with one line and an exit code instead of a traceback.

    Errors in the program itself (anything but ValueError and OSError) keep their traceback.
    """

    def main(self, *args: Any, standalone_mode: bool = True, **options: Any) -> Any:
        if not standalone_mode:
            return super().main(*args, standalone_mode=False, **options)
        try:
            result = super().main(*args, standalone_mode=False, **options)
        except (typer.Abort, KeyboardInterrupt):
            sys.exit(INTERRUPTED)
        except BrokenPipeError:
            # The reader of our output has left: end quietly, without the interpreter's own complaint at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(FAILED)
        except Exception as error:
            code = _code(error)
            if code is None:
                raise
            sys.stderr.write(f"{_place(error)}: {' '.join(_message(error).split())}\n")
            sys.exit(code)
        sys.exit(result if isinstance(result, int) else 0)


def _code(error: Exception) -> int | None:
    """The exit code, None for an error that is ours."""
    if _is_usage(error) or isinstance(error, ValueError | OSError):
        return BAD_INPUT
    return FAILED if type(error).__name__ == "OutOfMemoryError" else None


def _is_usage(error: Exception) -> bool:
    # Which class it is depends on the version of typer, which may or may not bring its own copy of click.
    return hasattr(error, "format_message") and hasattr(error, "exit_code")


def _place(error: Exception) -> str:
    """The command that was called."""
    context: Any = getattr(error, "ctx", None) or getattr(error, "command_context", None)
    return context.command_path if context is not None else "unimodal"


def _message(error: Any) -> str:
    if not _is_usage(error):
        return str(error) or type(error).__name__
    message = error.format_message()
    context = getattr(error, "ctx", None)
    if context is None:
        return message
    if hasattr(error, "option_name") and message.startswith("No such option"):
        options = [name for parameter in context.command.params for name in parameter.opts if name.startswith("--")]
        return f"{message.split(' Did you mean')[0]} (allowed are {', '.join(options)})"
    if message.startswith("No such command"):
        return f"{message} (allowed are {', '.join(context.command.list_commands(context))})"
    return message
