"""The demo's report: as text, as JSON and as a picture.

Of each event (a swap of the engine, a move to another store, a server killed) the *gap in service* is the longest
time without an acknowledgement that overlaps it: what a client that appends all the time would have noticed. The
same measure without any event stands beside it, since acknowledgements always come in groups.
"""

from __future__ import annotations

import json
import statistics
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from check import Findings, Input

if TYPE_CHECKING:
    from virtuallog import Chain

    from demo import Written

# Seconds of one point of the plotted rate.
BIN_S = 0.1
# Acknowledgements this close to an event do not count as undisturbed.
NEAR_S = 0.1

BLUE, ORANGE, GREY, INK = "#2b6cb0", "#dd6b20", "#718096", "#1a202c"


@dataclass(frozen=True)
class Event:
    """What happened to the log: from when to when, and where the loglet begins that was active then."""

    what: str
    begun_at: float
    done_at: float
    position: int

    @property
    def took_ms(self) -> float:
        return (self.done_at - self.begun_at) * 1e3


def grouped(number: float) -> str:
    """A number as people read it."""
    return f"{number:,.0f}"


def counted(number: int, one: str, many: str) -> str:
    """A number and what it counts."""
    return f"{grouped(number)} {one if number == 1 else many}"


def percentile(values: list[float], share: float) -> float:
    """The value that this share of all values does not exceed; 0 of none."""
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else 0.0


def print_table(rows: list[list[str]]) -> None:
    """Columns that line up: the first to the left, the others to the right."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    for first, *others in rows:
        cells = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        print("  " + "   ".join([first.ljust(widths[0]), *cells]).rstrip())


@dataclass
class Report:
    """Everything that came out of one run."""

    source: Input
    url: str
    written: Written
    events: list[Event]
    chain: Chain
    readers: dict[str, Findings]
    # Of the entries of each other writer, as this program read them.
    others: dict[str, Findings]
    followed: list[tuple[float, int]]

    @cached_property
    def seconds(self) -> float:
        """From the first append to the last acknowledgement."""
        return self.written.acked_at[-1] - self.written.started_at

    @cached_property
    def rate(self) -> float:
        return len(self.written.acked_at) / self.seconds

    @cached_property
    def gaps_ms(self) -> list[float]:
        """The gap in service of each event."""
        return [self.gap_ms(event.begun_at, event.done_at) for event in self.events]

    def gap_ms(self, begun_at: float, done_at: float) -> float:
        acked = self.written.acked_at
        first = max(bisect_left(acked, begun_at) - 1, 0)
        last = min(bisect_right(acked, done_at) + 1, len(acked))
        around = acked[first:last]
        pairs = zip(around, around[1:], strict=False)
        return max((b - a for a, b in pairs), default=0.0) * 1e3

    @cached_property
    def undisturbed_ms(self) -> list[float]:
        """The longest time without an acknowledgement in each stretch as long as an event's, with no
        event near."""
        acked = self.written.acked_at
        longest: list[float] = []
        stretch = max(statistics.median(event.took_ms for event in self.events) / 1e3, 0.005)
        at = acked[0]
        while (at := at + 0.05) < acked[-1] - stretch:
            near = (at + stretch + NEAR_S, at - NEAR_S)
            if all(near[0] < event.begun_at or event.done_at < near[1] for event in self.events):
                longest.append(self.gap_ms(at, at + stretch))
        return longest

    @cached_property
    def rates(self) -> list[tuple[float, float]]:
        """Seconds since the start, and entries acknowledged a second around then."""
        acked, start = self.written.acked_at, self.written.started_at
        points = []
        for number in range(int(self.seconds / BIN_S)):
            low, high = start + number * BIN_S, start + (number + 1) * BIN_S
            count = bisect_left(acked, high) - bisect_left(acked, low)
            points.append(((number + 0.5) * BIN_S, count / BIN_S))
        return points

    @cached_property
    def lags_ms(self) -> list[tuple[float, float]]:
        """Seconds since the start, and how long after its acknowledgement the follower had an entry."""
        acked, start = self.written.acked_at, self.written.started_at
        return [
            (at - start, max(at - acked[count - 1], 0.0) * 1e3)
            for at, count in self.followed
            if count <= len(acked)
        ]

    @cached_property
    def expected_sha256(self) -> str:
        return self.source.sha256(self.written.passes)

    @cached_property
    def clean(self) -> bool:
        """Whether every reader got exactly what was written."""
        return all(
            found.clean
            and found.entries == self.written.submitted
            and found.sha256 == self.expected_sha256
            for found in self.readers.values()
        ) and all(found.clean and found.entries for found in self.others.values())

    @cached_property
    def verdict(self) -> str:
        if self.clean:
            return "nothing lost, nothing doubled, nothing out of order"
        return "NOT what was written: see the table"

    def print(self) -> None:
        """The report as text."""
        passes = counted(self.written.passes, "pass", "passes")
        entries = grouped(self.written.submitted)
        lags = [lag for _, lag in self.lags_ms]
        print()
        print(f"  entries      {entries} in {passes} over the input, {self.seconds:.1f} s")
        print(f"  rate         {grouped(self.rate)} entries/s, acknowledged when on disk")
        print(
            f"  events       {len(self.events)}, gap in service {statistics.median(self.gaps_ms):.1f} ms"
            f" (median), {max(self.gaps_ms):.1f} ms (longest);"
            f" without an event {percentile(self.undisturbed_ms, 0.5):.1f} ms"
            f" and {percentile(self.undisturbed_ms, 0.99):.1f} ms (99th percentile)"
        )
        print(
            f"  follower     {percentile(lags, 0.5):.1f} ms behind the acknowledgements (median),"
            f" {percentile(lags, 0.99):.1f} ms (99th percentile)"
        )
        print()
        print_table(self.event_rows())
        print()
        print_table(self.chain_rows())
        print()
        print_table(self.reader_rows())
        print()
        print(f"  verdict      {self.verdict}", flush=True)

    def event_rows(self) -> list[list[str]]:
        rows = [["event", "at", "took", "gap in service"]]
        for event, gap in zip(self.events, self.gaps_ms, strict=True):
            at = f"{event.begun_at - self.written.started_at:.1f} s"
            rows.append([event.what, at, f"{event.took_ms:.1f} ms", f"{gap:.1f} ms"])
        return rows

    def chain_rows(self) -> list[list[str]]:
        rows = [["segment", "loglet", "from", "to"]]
        for segment in self.chain.segments:
            stop = "-" if segment.stop is None else grouped(segment.stop)
            rows.append([str(segment.index), segment.loglet, grouped(segment.start), stop])
        return rows

    def reader_rows(self) -> list[list[str]]:
        rows = [["read by", "entries", "lost", "doubled", "reordered", "misplaced", "sha256"]]
        written = grouped(self.written.submitted)
        rows.append(["(the input)", written, "", "", "", "", self.expected_sha256[:16]])
        for name, found in self.readers.items():
            counts = [found.entries, found.lost, found.doubled, found.reordered, found.misplaced]
            rows.append([name, *map(grouped, counts), found.sha256[:16]])
        for name, found in self.others.items():
            counts = [found.entries, found.lost, found.doubled, found.reordered, found.misplaced]
            rows.append([f"of the writer in {name}", *map(grouped, counts), ""])
        return rows

    def as_dict(self) -> dict[str, Any]:
        lags = [lag for _, lag in self.lags_ms]
        start = self.written.started_at
        return {
            "verdict": self.verdict,
            "clean": self.clean,
            "input": {"name": self.source.name, "lines": len(self.source.lines)},
            "url": self.url,
            "passes": self.written.passes,
            "entries": self.written.submitted,
            "sha256": self.expected_sha256,
            "seconds": round(self.seconds, 3),
            "entries_per_s": round(self.rate),
            "events": [
                {
                    "what": event.what,
                    "at_s": round(event.begun_at - start, 3),
                    "took_ms": round(event.took_ms, 3),
                    "gap_ms": round(gap, 3),
                    "position": event.position,
                }
                for event, gap in zip(self.events, self.gaps_ms, strict=True)
            ],
            "gap_ms": {
                "median": round(statistics.median(self.gaps_ms), 3),
                "max": round(max(self.gaps_ms), 3),
            },
            "gap_without_event_ms": {
                "median": round(percentile(self.undisturbed_ms, 0.5), 3),
                "p99": round(percentile(self.undisturbed_ms, 0.99), 3),
            },
            "follower_lag_ms": {
                "median": round(percentile(lags, 0.5), 3),
                "p99": round(percentile(lags, 0.99), 3),
            },
            "chain": {
                "version": self.chain.version,
                "segments": [
                    {"index": s.index, "loglet": s.loglet, "start": s.start, "stop": s.stop}
                    for s in self.chain.segments
                ],
            },
            "readers": {name: found.as_dict() for name, found in self.readers.items()},
            "writers": {name: found.as_dict() for name, found in self.others.items()},
            "rate": [[round(at, 3), round(rate)] for at, rate in self.rates],
        }

    def write_json(self, path: Path) -> None:
        """The same report for programs."""
        path.write_text(json.dumps(self.as_dict(), indent=1) + "\n")
        print(f"  report       {path}")

    def plot(self, path: Path) -> None:
        """The rate over time, with the events, and how far the follower was behind."""
        try:
            import matplotlib
        except ImportError:
            print("  plot         none: `pip install matplotlib` for a picture")
            return
        matplotlib.use("Agg")
        from matplotlib import pyplot

        style: Any = {"font.family": "DejaVu Sans", "font.size": 9, "text.color": INK}
        style |= {"axes.edgecolor": "#cbd5e0", "axes.labelcolor": INK, "axes.spines.top": False}
        style |= {"axes.spines.right": False, "xtick.color": GREY, "ytick.color": GREY}
        with pyplot.rc_context(style):
            figure, (above, below) = pyplot.subplots(
                2, 1, sharex=True, figsize=(10, 5.6), height_ratios=[3, 1]
            )
            self.plot_rate(above)
            self.plot_lag(below)
            entries = grouped(self.written.submitted)
            title = f"{entries} entries: {self.verdict}"
            below_title = (
                "To a cluster and back, one server killed: "
                f"{grouped(self.rate)} durable entries/s from Python, {len(self.others)} other writers beside it"
            )
            figure.set_layout_engine("constrained", rect=(0.01, 0.01, 0.98, 0.89))
            figure.text(0.02, 0.945, title, fontsize=12, fontweight="bold")
            figure.text(0.02, 0.905, below_title, color=GREY)
            figure.savefig(path, dpi=150)
            pyplot.close(figure)
        print(f"  plot         {path}")

    def plot_rate(self, axes: Any) -> None:
        times, rates = zip(*self.rates, strict=True)
        thousands = [rate / 1e3 for rate in rates]
        top = max(thousands) * 1.25
        axes.fill_between(times, thousands, color=BLUE, alpha=0.15, linewidth=0)
        axes.plot(times, thousands, color=BLUE, linewidth=1.6)
        axes.set_ylim(0, top)
        axes.set_ylabel("thousand entries/s acknowledged")
        axes.grid(axis="y", color="#edf2f7")
        axes.set_axisbelow(True)
        for event, gap in zip(self.events, self.gaps_ms, strict=True):
            at = event.begun_at - self.written.started_at
            axes.axvline(at, color=ORANGE, linewidth=1.2, linestyle=(0, (4, 2)))
            axes.annotate(
                f"{event.what}\ngap {gap:.0f} ms",
                (at, top),
                xytext=(4, -2),
                textcoords="offset points",
                va="top",
                color=ORANGE,
                fontsize=8,
            )

    def plot_lag(self, axes: Any) -> None:
        for event in self.events:
            at = event.begun_at - self.written.started_at
            axes.axvline(at, color=ORANGE, linewidth=1.2, linestyle=(0, (4, 2)))
        if self.lags_ms:
            times, lags = zip(*self.lags_ms, strict=True)
            axes.plot(times, lags, color=GREY, linewidth=1)
        axes.set_ylim(bottom=0)
        axes.set_xlim(0, self.seconds)
        axes.set_ylabel("follower\nbehind, ms")
        axes.set_xlabel("seconds")
        axes.grid(axis="y", color="#edf2f7")
        axes.set_axisbelow(True)
