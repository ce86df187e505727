"""The demo's checker finds what it is there to find."""

from check import Checker, Findings

LINES = [b"a", b"b", b"", b"b", b"c"]


def check(got: list[bytes], written: int, step: int = 3) -> Findings:
    checker = Checker(LINES)
    for at in range(0, len(got), step):
        checker.feed(got[at : at + step])
    return checker.finish(written)


def counts(findings: Findings) -> tuple[int, int, int]:
    return findings.lost, findings.doubled, findings.reordered


def test_what_was_written_is_clean_however_it_is_cut() -> None:
    for step in (1, 3, 7, 100):
        findings = check(LINES * 4, 20, step)
        assert findings.clean and findings.entries == 20


def test_the_hash_is_that_of_the_lines_as_text() -> None:
    from check import Input

    assert check(LINES * 2, 10).sha256 == Input("", LINES).sha256(2)


def test_an_entry_that_is_missing_is_a_loss() -> None:
    assert counts(check(LINES[:2] + LINES[3:] + LINES, 10)) == (1, 0, 0)
    assert counts(check(LINES[:-1], 5)) == (1, 0, 0)


def test_an_entry_that_comes_twice_is_doubled() -> None:
    assert counts(check(LINES[:1] + LINES, 5)) == (0, 1, 0)
    assert counts(check(LINES + LINES[:1], 5)) == (0, 1, 0)


def test_an_entry_of_nobody_is_too_many_and_hides_no_loss() -> None:
    assert counts(check([b"a", b"x", b"", b"b", b"c"], 5)) == (1, 1, 0)


def test_entries_that_changed_places_are_reordered() -> None:
    assert counts(check([b"b", b"a", b"", b"b", b"c"], 5)) == (0, 0, 2)
    text = [b"%d" % number for number in range(1000)]
    checker = Checker(text)
    checker.feed(text[:500] + text[600:700] + text[500:600] + text[700:])
    assert counts(checker.finish(1000)) == (0, 0, 100)
