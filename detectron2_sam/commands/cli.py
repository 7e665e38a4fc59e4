"""What the commands share: their command lines, exit statuses, and processes of this program.

The module of a command imports only the standard library until the command runs, so that `--help` answers at once.
"""

from __future__ import annotations

import argparse
import errno
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

from detectron2_sam.commands.streams import lost_output, steady_streams
from detectron2_sam.interrupt import silent_interrupt
from sam_common.errors import Interrupted, UserError
from sam_common.text import LineFormatter

_CLONE = Path(__file__).resolve().parents[2]


class ToolParser(argparse.ArgumentParser):
    """A command line whose mistakes are a `UserError`: one line, without the usage in front."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see --help")


def command_line(name: str, description: str | None, **options: Any) -> ToolParser:
    """The command line of `detectron2-sam NAME`, its description printed as it is written."""
    shown = argparse.RawDescriptionHelpFormatter
    return ToolParser(prog=f"detectron2-sam {name}", description=description, formatter_class=shown, **options)


def add_config(parser: argparse.ArgumentParser | argparse._ArgumentGroup, **options: Any) -> None:
    """Adds `--config-file`, or `--config` for short."""
    text = "a shipped configuration such as possam_T, or the path of a YAML file"
    parser.add_argument("--config", "--config-file", dest="config_file", metavar="NAME", **{"help": text, **options})


def add_overrides(parser: argparse.ArgumentParser, nargs: str = "*") -> None:
    """Adds trailing `KEY VALUE` pairs, between options too, or only after them (`argparse.REMAINDER`)."""
    text = "override keys of the configuration, for example MODEL.DEVICE cpu"
    parser.add_argument("opts", nargs=nargs, metavar="KEY VALUE", help=text)


def add_number(parser: argparse._ActionsContainer, name: str, default: int, meaning: str) -> None:
    """Adds an option that takes a whole number, with its default told in the help."""
    parser.add_argument(name, type=int, default=default, metavar="N", help=f"{meaning} (default: %(default)s)")


def run_later(parse: Callable[[Sequence[str]], argparse.Namespace], module: str) -> Callable[[Sequence[str]], Any]:
    """The `main` of a command: parses a command line, and only then imports the module whose `main` carries it out."""

    def main(argv: Sequence[str]) -> Any:
        args = parse(argv)
        with silent_interrupt():
            command = import_module(module)
        return command.main(args)

    return main


def check_at_least(args: argparse.Namespace, **least: int) -> None:
    """Raises UserError where an argument is a smaller number than it can be."""
    for name, value in least.items():
        if getattr(args, name) < value:
            raise UserError(f"--{name.replace('_', '-')} is {getattr(args, name)}; give at least {value}")


def run_tool(main: Callable[[], Any]) -> int:
    """Runs a command and returns its exit status, 0 where `main` returns none: what went wrong is one line on stderr,
    without a traceback."""
    steady_streams()
    if logging.lastResort is not None:  # for warnings where no run logs
        logging.lastResort.setFormatter(LineFormatter())
    try:
        status = main()
        if (lost := lost_output()) is not None:
            raise UserError(f"cannot write standard output: {lost.strerror}; what is written to files is not affected")
    except UserError as error:
        return _end(f"error: {error}", 2)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        return _end(f"error: cannot write {error.filename or 'a file'}: {error.strerror}", 2)
    except Interrupted as interrupted:
        return _end(str(interrupted), 128 + interrupted.signum)
    except KeyboardInterrupt:  # before the run began, or Ctrl-C twice
        return 128 + signal.SIGINT
    return status if isinstance(status, int) else 0


def _end(message: str, status: int) -> int:
    """Prints the last line of a command, below what it has printed before."""
    sys.stdout.flush()
    print(message, file=sys.stderr)
    return status


def program_process(*arguments: str) -> dict[str, Any]:
    """What `subprocess` needs to run this program, from a clone that is not installed too."""
    paths = [str(_CLONE)] if (_CLONE / "pyproject.toml").is_file() else []  # site-packages would hide Python's own
    paths += [os.environ["PYTHONPATH"]] if os.environ.get("PYTHONPATH") else []
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)} if paths else dict(os.environ)
    return {"args": [sys.executable, "-m", "detectron2_sam", *arguments], "env": environment}
