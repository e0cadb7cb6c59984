//! A figure: what was measured, beside its floor and its target. It decides whether a target is met.

use std::fmt;

use serde::{Serialize, Serializer};

/// The figures of one bench.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    bench: &'static str,
    figures: Vec<Figure>,
    #[serde(skip)]
    smoke: bool,
}

/// One measured number.
#[derive(Debug, Serialize)]
pub(super) struct Figure {
    pub(super) name: String,
    #[serde(serialize_with = "rounded")]
    pub(super) value: f64,
    pub(super) unit: &'static str,
    #[serde(serialize_with = "rounded_option")]
    pub(super) floor: Option<f64>,
    /// The value over the floor.
    #[serde(serialize_with = "rounded_option")]
    pub(super) ratio: Option<f64>,
    pub(super) target: Option<Target>,
    /// `None` without a target, or when the sizes are not those that the target speaks of.
    pub(super) met: Option<bool>,
}

/// What a figure should be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Target {
    /// The value, in the figure's unit.
    AtMost(f64),
    /// The value, in the figure's unit.
    AtLeast(f64),
    /// The value over the floor.
    RatioAtMost(f64),
    /// The value over the floor.
    RatioAtLeast(f64),
}

impl Report {
    pub(super) fn new(bench: &'static str, smoke: bool) -> Self {
        Self {
            bench,
            figures: Vec::new(),
            smoke,
        }
    }

    /// Adds a figure, and tells it to whoever waits.
    pub(super) fn add(&mut self, mut figure: Figure) {
        if self.smoke {
            figure.met = None;
        }
        super::say(&format!("  {figure}"));
        self.figures.push(figure);
    }

    pub(super) fn bench(&self) -> &'static str {
        self.bench
    }

    pub(super) fn figures(&self) -> &[Figure] {
        &self.figures
    }
}

impl Figure {
    pub(super) fn new(name: impl Into<String>, value: f64, unit: &'static str) -> Self {
        Self {
            name: name.into(),
            value,
            unit,
            floor: None,
            ratio: None,
            target: None,
            met: None,
        }
    }

    /// What the same would cost at least, measured in the same run, in the same unit.
    pub(super) fn over(mut self, floor: f64) -> Self {
        self.floor = Some(floor);
        self.ratio = (floor > 0.0).then(|| self.value / floor);
        self
    }

    /// Give the floor first: a target of the ratio is judged by it.
    pub(super) fn target(self, target: Target) -> Self {
        self.target_if(Some(target))
    }

    pub(super) fn target_if(mut self, target: Option<Target>) -> Self {
        self.met = target.and_then(|target| target.is_met(self.value, self.ratio));
        self.target = target;
        self
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "{} = {} {}", self.name, round(self.value), self.unit)?;
        if let Some(ratio) = self.ratio {
            write!(to, " (ratio {ratio:.3})")?;
        }
        Ok(())
    }
}

impl Target {
    fn is_met(self, value: f64, ratio: Option<f64>) -> Option<bool> {
        match self {
            Self::AtMost(limit) => Some(value <= limit),
            Self::AtLeast(limit) => Some(value >= limit),
            Self::RatioAtMost(limit) => ratio.map(|ratio| ratio <= limit),
            Self::RatioAtLeast(limit) => ratio.map(|ratio| ratio >= limit),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (words, limit) = match self {
            Self::AtMost(limit) => ("<=", limit),
            Self::AtLeast(limit) => (">=", limit),
            Self::RatioAtMost(limit) => ("ratio <=", limit),
            Self::RatioAtLeast(limit) => ("ratio >=", limit),
        };
        write!(to, "{words} {}", round(*limit))
    }
}

impl Serialize for Target {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Four significant digits, or all before the point.
pub(super) fn round(value: f64) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return value;
    }
    let magnitude = value.abs().log10().floor();
    let scale = 10_f64.powf((3.0 - magnitude).max(0.0));
    (value * scale).round() / scale
}

fn rounded<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(round(*value))
}

#[expect(clippy::ref_option, reason = "serde gives fields by reference")]
fn rounded_option<S: Serializer>(value: &Option<f64>, serializer: S) -> Result<S::Ok, S::Error> {
    value.map(round).serialize(serializer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_judged_by_value_or_ratio() {
        let figure = |target| Figure::new("x", 30.0, "ms").over(10.0).target(target).met;
        for (target, met) in [
            (Target::AtMost(30.0), true),
            (Target::AtMost(29.9), false),
            (Target::AtLeast(30.0), true),
            (Target::AtLeast(30.1), false),
            (Target::RatioAtMost(3.0), true),
            (Target::RatioAtMost(2.9), false),
            (Target::RatioAtLeast(3.0), true),
            (Target::RatioAtLeast(3.1), false),
        ] {
            assert_eq!(figure(target), Some(met), "{target}");
        }
        let without_floor = Figure::new("x", 1.0, "ms").target(Target::RatioAtMost(2.0));
        assert_eq!(without_floor.met, None);
    }

    #[test]
    fn json_has_every_field() {
        let mut report = Report::new("store", false);
        let figure = Figure::new("commit p50", 0.123_456, "ms").over(0.1);
        report.add(figure.target(Target::RatioAtMost(2.0)));
        report.add(Figure::new("commits", 12_345.678, "1/s"));
        assert_eq!(
            serde_json::to_value(&report).unwrap(),
            serde_json::json!({"bench": "store", "figures": [
                {"name": "commit p50", "value": 0.1235, "unit": "ms", "floor": 0.1, "ratio": 1.235,
                 "target": "ratio <= 2", "met": true},
                {"name": "commits", "value": 12346.0, "unit": "1/s", "floor": null, "ratio": null,
                 "target": null, "met": null},
            ]})
        );
    }

    #[test]
    fn small_sizes_meet_nothing() {
        let mut report = Report::new("store", true);
        report.add(Figure::new("x", 1.0, "ms").target(Target::AtMost(2.0)));
        assert_eq!(report.figures()[0].met, None);
        assert!(report.figures()[0].target.is_some());
    }
}
