"""The exceptions are those of the one error table, carry their fields, and can be pickled."""

from __future__ import annotations

import builtins
import copy
import pickle
import tomllib
from pathlib import Path
from typing import Any

import pytest
import virtuallog
from virtuallog import VirtualLogError
from virtuallog.errors import BY_CODE, _from_native

TABLE = Path(__file__).parents[2] / "bindings" / "errors.toml"
ROWS = tomllib.loads(TABLE.read_text())["error"]


def native(code: str, **fields: Any) -> VirtualLogError:
    given = {"retryable": False, "in_doubt": False, "position": None, "token": None, "causes": ()}
    return _from_native(code, "what to do", **(given | fields))


def test_every_code_has_its_class_and_no_other_is_there() -> None:
    assert list(BY_CODE) == [row["name"] for row in ROWS]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["name"])
def test_class_is_as_the_table_says(row: dict[str, Any]) -> None:
    subclass = getattr(virtuallog, row["python"]["class"])
    assert subclass is BY_CODE[row["name"]]
    assert issubclass(subclass, VirtualLogError)
    if row["python"]["base"]:
        assert issubclass(subclass, getattr(builtins, row["python"]["base"]))
    assert subclass("x").code == row["name"]
    assert subclass("x").retryable is row["retryable"]
    assert subclass("x", in_doubt=True).retryable is False
    assert subclass.__doc__.replace("``", "`").split() == row["doc"].split()


@pytest.mark.parametrize("code", BY_CODE)
def test_fields_survive_pickle_and_copy(code: str) -> None:
    fields = {"in_doubt": True, "position": 7, "token": "t", "causes": ("a", "b")}
    error = native(code, **fields)
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert type(twin) is type(error)
        assert str(twin) == "what to do"
        assert {name: getattr(twin, name) for name in fields} == fields


def test_an_unknown_code_is_internal() -> None:
    assert type(native("FROM_THE_FUTURE")) is virtuallog.InternalError


def test_errors_of_real_calls(log: virtuallog.Log) -> None:
    log.append_many([b"a", b"b"])
    log.prefix_trim(1)
    with pytest.raises(LookupError) as trimmed:
        list(log.read(0))
    assert isinstance(trimmed.value, virtuallog.TrimmedError)
    assert (trimmed.value.position, trimmed.value.code) == (1, "TRIMMED")
    assert pickle.loads(pickle.dumps(trimmed.value)).position == 1
    with pytest.raises(ValueError):
        virtuallog.open("nonsense")
    with pytest.raises(TimeoutError) as deadline, log.subscribe("tail") as subscription:
        subscription.next_batch(timeout=0)
    assert isinstance(deadline.value, virtuallog.DeadlineError)
    assert deadline.value.retryable and not deadline.value.in_doubt
