"""What a program gets back: a request's result, and for a request to all exchanges the data of each."""

from typing import Any, Final, Generic, Self, TypeVar

from msgspec import json, msgpack
from msgspec.structs import force_setattr

from .. import messages
from ..encodings import is_json
from ..messages import ErrorCode, Failure, Request, decode_with
from .errors import RequestFailed, failed

T = TypeVar("T")


class Result(messages.Result, frozen=True):
    """The answer to one request; its fields are those of `messages.Result`."""

    @property
    def failure(self) -> RequestFailed | None:
        """The error as it is raised; None where there is data."""
        if self.error is None:
            return None
        code, message = self.error.code, self.error.message
        return failed(code, message, self.method, self.id, self.exchange, self.attempts)

    def get(self) -> Any:
        """The data; raises the error, where it is one (see `errors`)."""
        if (failure := self.failure) is not None:
            raise failure
        return self.data


# Stands in an answer until `decode_answer` has put its own there.
_NOBODYS: Final = Request("none")


class Answer(Result, frozen=True):
    """A result with the request that it answers.

    Args:
        request: as it was sent, with its id and deadline.
    """

    request: Request = _NOBODYS


class All(dict[str, T], Generic[T]):
    """The data of each exchange that answered, by its name.

    Attributes:
        errors: why the others did not.
        answers: all results, with their attempts and timings.
    """

    def __init__(self, answers: list[Answer]) -> None:
        super().__init__({answer.exchange or "": answer.data for answer in answers if answer.ok})
        self.answers = answers
        told = [(answer.exchange or "", answer.failure) for answer in answers]
        self.errors: dict[str, RequestFailed] = {name: failure for name, failure in told if failure is not None}

    @classmethod
    def of(cls, answers: list[Answer]) -> Self:
        """All of these; raises what went wrong with the request as a whole, where it never came to the exchanges."""
        if len(answers) == 1 and answers[0].results == 1 and not answers[0].ok:
            answers[0].get()
        return cls(answers)


_RESULTS: Final = (msgpack.Decoder(Result), json.Decoder(Result))
_ANSWERS: Final = (msgpack.Decoder(Answer), json.Decoder(Answer))


def decode_result(content_type: str, body: bytes) -> Result:
    """Reads any result; raises msgspec.DecodeError where it is none that this version knows."""
    return decode_with(_RESULTS[is_json(content_type, body)], body)


def decode_answer(content_type: str, body: bytes, request: Request) -> Answer:
    """Reads the result of a request; raises msgspec.DecodeError where it is none that this version knows."""
    answer = decode_with(_ANSWERS[is_json(content_type, body)], body)
    force_setattr(answer, "request", request)
    return answer


def unanswered(request: Request, code: ErrorCode, message: str) -> Answer:
    """An error that this side makes, as nothing came from the fleet; its `received_ms` is 0."""
    exchange = request.exchanges[0] if len(request.exchanges) == 1 else None
    return Answer(request.id, False, request.method, exchange=exchange, error=Failure(code, message), request=request)
