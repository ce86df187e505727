"""The verdict over the demo's other writers finds what it is there to find."""

from array import array

from writers import MARK, Others, own, verdict

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


def test_entries_are_told_apart_by_their_mark() -> None:
    others = Others({"python": TOLD})
    for number, position in enumerate(TOLD):
        others.feed(position, MARK + b"python %d" % number)
    assert others.findings()["python"].clean
    assert own([b"a", MARK + b"python 0", b""]) == [b"a", b""]
