"""What command line tools share: mistakes are one line on stderr, and the exit status says what happened."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from sam_common.engine.launch import Interrupted
from sam_common.errors import UserError


class ToolParser(argparse.ArgumentParser):
    """A command line whose mistakes are a `UserError`: one line, without the usage in front."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see --help")


def run_tool(main: Callable[[], Any]) -> int:
    """Runs a command line tool and returns its exit status, 0 where `main` returns none: what went wrong is one line
    on stderr, no traceback."""
    try:
        status = main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except Interrupted as interrupted:
        print(interrupted, file=sys.stderr)
        return 128 + interrupted.signum
    except KeyboardInterrupt:  # before the run began, or Ctrl-C twice
        return 128 + signal.SIGINT
    return status if isinstance(status, int) else 0
