//! Medians and the like over a handful of numbers.

use std::time::Duration;

/// The middle one; of an even number, the upper of the two. Zero of none.
pub(super) fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied().unwrap_or(0.0)
}

/// The number that `percent` of all do not exceed. Zero of none.
pub(super) fn percentile(mut numbers: Vec<f64>, percent: usize) -> f64 {
    numbers.sort_by(f64::total_cmp);
    let rank = (numbers.len() * percent).div_ceil(100).max(1);
    numbers.get(rank - 1).copied().unwrap_or(0.0)
}

/// The largest. Zero of none.
pub(super) fn largest(numbers: &[f64]) -> f64 {
    numbers.iter().copied().fold(0.0, f64::max)
}

pub(super) fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

pub(super) fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks() {
        let numbers: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert_eq!(percentile(numbers.clone(), 99), 99.0);
        assert_eq!(percentile(numbers.clone(), 50), 50.0);
        assert_eq!(percentile(numbers.clone(), 1), 1.0);
        assert_eq!(largest(&numbers), 100.0);
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(percentile(vec![7.0], 50), 7.0);
        assert_eq!((median(vec![]), percentile(vec![], 50)), (0.0, 0.0));
    }
}
