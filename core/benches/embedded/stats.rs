//! Medians, percentiles, and the rows that a section reports.

use std::fmt;

/// The `per_mille`-th per mille of the values, which are sorted on the way.
pub(crate) fn percentile(values: &mut [f64], per_mille: usize) -> f64 {
    assert!(!values.is_empty(), "a percentile of something");
    values.sort_by(f64::total_cmp);
    values[(values.len() * per_mille / 1000).min(values.len() - 1)]
}

/// The middle value.
pub(crate) fn median(values: &mut [f64]) -> f64 {
    percentile(values, 500)
}

/// One figure: what was measured, what it is compared with, and what it has to be.
pub(crate) struct Row {
    pub(crate) what: String,
    pub(crate) measured: f64,
    pub(crate) unit: String,
    /// What it is compared with, in the same unit; not a number: nothing.
    pub(crate) against: f64,
    /// The bar: for the ratio if there is something to compare with, else for the figure.
    pub(crate) bar: f64,
    pub(crate) at_least: bool,
}

impl Row {
    /// A figure with a bar of its own.
    pub(crate) fn figure(what: &str, measured: f64, unit: &str, bar: f64, at_least: bool) -> Row {
        Row { what: what.into(), measured, unit: unit.into(), against: f64::NAN, bar, at_least }
    }

    /// A figure that is judged by its ratio to another one of the same run.
    pub(crate) fn ratio(
        what: &str,
        ours: f64,
        theirs: f64,
        unit: &str,
        bar: f64,
        at_least: bool,
    ) -> Row {
        Row { what: what.into(), measured: ours, unit: unit.into(), against: theirs, bar, at_least }
    }

    fn judged(&self) -> f64 {
        if self.against.is_nan() { self.measured } else { self.measured / self.against }
    }

    pub(crate) fn holds(&self) -> bool {
        match self.at_least {
            true => self.judged() >= self.bar,
            false => self.judged() <= self.bar,
        }
    }

    pub(crate) fn heading() -> String {
        format!(
            "{:<58} {:>12} {:>12} {:>8} {:>10}  {}",
            "", "measured", "against", "ratio", "bar", ""
        )
    }

    pub(crate) fn encode(&self) -> String {
        let Row { what, measured, unit, against, bar, at_least } = self;
        format!("ROW\t{what}\t{measured}\t{unit}\t{against}\t{bar}\t{at_least}")
    }

    pub(crate) fn decode(line: &str) -> Option<Row> {
        let fields: Vec<&str> = line.strip_prefix("ROW\t")?.split('\t').collect();
        let [what, measured, unit, against, bar, at_least] = fields[..] else { return None };
        Some(Row {
            what: what.into(),
            measured: measured.parse().ok()?,
            unit: unit.into(),
            against: against.parse().ok()?,
            bar: bar.parse().ok()?,
            at_least: at_least.parse().ok()?,
        })
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |value: f64| match value.abs() {
            1e6.. => format!("{:.2} M", value / 1e6),
            1e4.. => format!("{:.0} k", value / 1e3),
            100.0.. => format!("{value:.0}"),
            _ => format!("{value:.2}"),
        };
        let compared = !self.against.is_nan();
        write!(
            f,
            "{:<58} {:>12} {:>12} {:>8} {:>10}  {}",
            format!("{} [{}]", self.what, self.unit),
            number(self.measured),
            if compared { number(self.against) } else { "-".into() },
            if compared { format!("{:.2}", self.judged()) } else { "-".into() },
            format!("{} {}", if self.at_least { ">=" } else { "<=" }, number(self.bar)),
            if self.holds() { "holds" } else { "MISSED" },
        )
    }
}
