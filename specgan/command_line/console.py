"""What the scripts print, also into a pipe that closes."""

import logging
import os
import sys
from typing import NoReturn, TextIO

_SIGPIPE_CODE = 141  # 128 + SIGPIPE, as a shell has it of other tools


class Console(logging.StreamHandler):
    """Ends the program quietly when nobody reads its output any more, as of `python train.py | head -1`.

    Python's own handler prints a stack trace for each further message, and the program goes on.
    """

    def handleError(self, record: logging.LogRecord) -> None:
        if not isinstance(sys.exc_info()[1], BrokenPipeError):
            super().handleError(record)
            return
        end_quietly(self.stream)


def end_quietly(stream: TextIO) -> NoReturn:
    """Ends the program, because nobody reads this stream any more, as SIGPIPE ends other tools."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())  # else Python complains at its end that it cannot empty its buffer
    sys.exit(_SIGPIPE_CODE)
