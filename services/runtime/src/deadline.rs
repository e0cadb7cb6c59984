//! The time by which a call must be answered, as a value that travels with the request: the
//! deadline layer puts it in, handlers pass it on, the client sends what is left of it. It never
//! waits and never enforces anything itself.

use std::time::Duration;

use http::{HeaderMap, HeaderValue};
use tokio::time::Instant;

#[cfg(test)]
mod tests;

/// gRPC's header for the time that a caller gives.
pub const HEADER: &str = "grpc-timeout";

/// The instant by which a call must be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(Instant);

impl Deadline {
    /// At `instant`.
    pub fn at(instant: Instant) -> Self {
        Self(instant)
    }

    /// In `timeout` from now.
    pub fn after(timeout: Duration) -> Self {
        // A timeout beyond what the clock can count is as good as a century.
        const CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
        Self(Instant::now() + timeout.min(CENTURY))
    }

    /// The deadline of the call that `request` belongs to, if a layer or a caller has set one.
    pub fn of<T>(request: &tonic::Request<T>) -> Option<Self> {
        request.extensions().get().copied()
    }

    /// Gives `request` this deadline: an outbound call then has as long as is left.
    pub fn carry<T>(self, request: &mut tonic::Request<T>) {
        request.extensions_mut().insert(self);
    }

    /// The instant itself, for timers.
    pub fn instant(self) -> Instant {
        self.0
    }

    /// What is left; zero once it has passed.
    pub fn remaining(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }

    /// The same deadline, but `margin` earlier: what a handler gives to those it asks, so that it
    /// has time left to answer itself.
    pub fn less(self, margin: Duration) -> Self {
        Self(self.0.checked_sub(margin).unwrap_or(self.0))
    }
}

/// The timeout that `headers` ask for. `Err` if there is one that cannot be read, which must be
/// told to the caller, not taken for none.
pub fn read(headers: &HeaderMap) -> Result<Option<Duration>, Malformed> {
    let Some(value) = headers.get(HEADER) else {
        return Ok(None);
    };
    let text = value.to_str().map_err(|_| Malformed)?;
    let (digits, unit) = text
        .split_at_checked(text.len().saturating_sub(1))
        .ok_or(Malformed)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Malformed);
    }
    let count: u64 = digits.parse().map_err(|_| Malformed)?;
    Ok(Some(match unit {
        "H" => Duration::from_secs(count * 3600),
        "M" => Duration::from_secs(count * 60),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return Err(Malformed),
    }))
}

/// The header's value for `timeout`: at most 8 digits, rounded down to the finest unit that fits.
pub fn header_value(timeout: Duration) -> HeaderValue {
    const LIMIT: u128 = 100_000_000;
    let units = [
        (timeout.as_nanos(), 'n'),
        (timeout.as_micros(), 'u'),
        (timeout.as_millis(), 'm'),
        (u128::from(timeout.as_secs()), 'S'),
        (u128::from(timeout.as_secs() / 60), 'M'),
    ];
    let text = units
        .into_iter()
        .find(|(count, _)| *count < LIMIT)
        .map_or_else(
            || "99999999M".to_owned(),
            |(count, unit)| format!("{count}{unit}"),
        );
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static("99999999M"))
}

/// A `grpc-timeout` that is not one to eight digits and a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("grpc-timeout must be one to eight digits and a unit of H, M, S, m, u or n")]
pub struct Malformed;
