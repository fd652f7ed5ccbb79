"""One class for each code, as docs/messages.md tells them, and ccxt's classes beside them where ccxt is loaded."""

import importlib
import pickle
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from schemas.client import errors
from schemas.errors import FleetError
from schemas.messages import ErrorCode, Outcome, Try

ROOT = Path(__file__).resolve().parents[2]
ccxt: Any = importlib.import_module("ccxt")
CLASSES = [*errors.BY_CODE.values(), errors.NotConnected, errors.NotAllowed, errors.NoDispatcher, errors.Closed]
# A program that has no ccxt, and one that has and has not imported it.
WITHOUT = """
import sys
from schemas.client import errors
from schemas.messages import ErrorCode
error = errors.failed(ErrorCode.BAD_SYMBOL, "which?")
assert type(error) is errors.BadSymbol, type(error).__mro__
assert not any(name.partition(".")[0] == "ccxt" for name in sys.modules)
"""


def test_every_code_has_a_class() -> None:
    assert set(errors.BY_CODE) == set(ErrorCode)
    assert set(errors.CCXT) == set(CLASSES)


@pytest.mark.parametrize("code", ErrorCode)
def test_a_retry_may_help_where_the_docs_say_so(code: ErrorCode) -> None:
    page = (ROOT / "docs" / "messages.md").read_text(encoding="utf-8")
    (row,) = re.findall(rf"^\| `{code}` \|.*$", page, re.MULTILINE)
    said = row.rstrip(" |").rpartition("| ")[2]
    helps = said.startswith(("yes", "later", "by itself", "perhaps"))
    assert errors.BY_CODE[code].retryable is helps, said


@pytest.mark.parametrize("kind", CLASSES)
def test_it_is_ccxt_s_class_too(kind: type[FleetError]) -> None:
    theirs = getattr(ccxt, errors.CCXT[kind])
    raised = errors.as_raised(kind)
    assert issubclass(raised, kind)
    assert issubclass(raised, theirs)
    assert raised is errors.as_raised(kind)
    assert raised.__name__ == kind.__name__
    # A bot that tries again what ccxt calls the network's failure does so rightly, and no other way round.
    if issubclass(theirs, ccxt.NetworkError) and kind is not errors.Clock:
        assert kind.retryable
    if kind.retryable:
        assert issubclass(theirs, ccxt.OperationFailed)


def test_ccxt_s_except_catches_it() -> None:
    for code, theirs in ((ErrorCode.BAD_SYMBOL, ccxt.BadSymbol), (ErrorCode.DEADLINE_EXCEEDED, ccxt.NetworkError)):
        try:
            raise errors.failed(code, "so")
        except theirs as error:
            assert isinstance(error, errors.RequestFailed)
            assert error.code is code


def test_without_ccxt_it_is_ours_alone() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_it_tells_all_that_is_known() -> None:
    attempts = [Try("binance", Outcome.FAILED), Try("okx.eu1", Outcome.THROTTLED)]
    error = errors.failed(ErrorCode.DEADLINE_EXCEEDED, "too late", "fetch_time", "mine", "okx", attempts)
    assert str(error) == "deadline_exceeded: too late (request mine, 2 attempts, the last at okx.eu1)"
    assert str(errors.failed(ErrorCode.CLOCK, "set it")) == "clock: set it"


def test_it_is_pickled() -> None:
    error = errors.failed(ErrorCode.RESTRICTED, "not here", "fetch_time", "mine", "okx", [Try("okx", Outcome.REJECTED)])
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert vars(again) == vars(error)
    assert str(again) == str(error)


@pytest.mark.parametrize("kind", [errors.NotConnected, errors.NotAllowed, errors.NoDispatcher, errors.Closed])
def test_those_without_a_code_are_pickled_too(kind: type[FleetError]) -> None:
    error = errors.as_raised(kind)("so")
    error.add_note("on Sunday")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert (str(again), vars(again)) == ("so", vars(error))


def test_a_code_of_a_newer_fleet_is_no_fault_here() -> None:
    assert isinstance(errors.failed("brand_new", "?"), errors.Internal)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
