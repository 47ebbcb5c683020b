"""The one error of the service: why a request is not answered."""

from collections.abc import Mapping

from starlette.exceptions import HTTPException


class RefusedError(HTTPException):
    """A request that is refused. It is answered as it is, wherever it is raised.

    Args:
        status_code: of HTTP.
        error: a word for programs, as in schema.ErrorAnswer.
        message: for people: what is wrong, and what to do.
        headers: of the answer.
    """

    def __init__(self, status_code: int, error: str, message: str, *, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status_code, message, headers)
        self.error = error

    def __str__(self) -> str:
        return self.detail
