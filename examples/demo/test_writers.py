"""The verdict over the demo's other writers finds what it is there to find."""

from array import array

import pytest
import writers
from writers import MARK, Others, commands, own, verdict

TOLD = array("Q", [3, 5, 9])


def counts(found: list[tuple[int, int]]) -> tuple[int, int, int, int]:
    findings = verdict(TOLD, found)
    return findings.lost, findings.doubled, findings.reordered, findings.misplaced


def test_what_was_told_is_clean() -> None:
    assert counts([(0, 3), (1, 5), (2, 9)]) == (0, 0, 0, 0)


def test_each_fault_is_counted() -> None:
    assert counts([(0, 3), (2, 9)]) == (1, 0, 0, 0)
    assert counts([(0, 3), (1, 5), (1, 6), (2, 9)]) == (0, 1, 0, 1)
    assert counts([(1, 3), (0, 5), (2, 9)]) == (0, 0, 1, 2)
    assert counts([(0, 3), (1, 7), (2, 9)]) == (0, 0, 0, 1)
    assert counts([(0, 3), (1, 5), (2, 9), (3, 10)]) == (0, 0, 0, 1)


def test_no_language_is_left_out_in_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WRITERS", raising=False)
    monkeypatch.setattr(writers, "c", lambda: ["writer-c"])
    monkeypatch.setattr(writers, "node", lambda: ["node"])
    assert list(commands()) == ["python", "node", "c"]
    monkeypatch.setattr(writers, "node", list)
    with pytest.raises(SystemExit, match="no writer in node: .*WRITERS=python,c"):
        commands()
    monkeypatch.setenv("WRITERS", "c,python")
    assert list(commands()) == ["c", "python"]
    monkeypatch.setenv("WRITERS", "perl")
    with pytest.raises(SystemExit, match="perl"):
        commands()


def test_entries_are_told_apart_by_their_mark() -> None:
    others = Others({"python": TOLD})
    for number, position in enumerate(TOLD):
        others.feed(position, MARK + b"python %d" % number)
    assert others.findings()["python"].clean
    assert own([b"a", MARK + b"python 0", b""]) == [b"a", b""]
