//! How long a server asks to be left alone. Of HTTP it reads the header alone: the date in it is compared
//! with the date that the same server puts on its answer, so that no clock of ours matters.

use std::time::Duration;

/// The longest time that is believed: nobody is left alone for ever because of one wrong header.
const LONGEST: Duration = Duration::from_secs(3600);

/// As much of a time that was asked for as is believed.
pub fn believed(asked: Duration) -> Duration {
    asked.min(LONGEST)
}

/// The time that `Retry-After` asks for, in seconds or as a date; none if it is neither, or a date
/// without a `Date` to compare it with.
pub fn wait(retry_after: &str, date: Option<&str>) -> Option<Duration> {
    let retry_after = retry_after.trim();
    if !retry_after.is_empty() && retry_after.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than fit are more seconds than are believed.
        let seconds = retry_after.parse().unwrap_or(u64::MAX);
        return Some(believed(Duration::from_secs(seconds)));
    }
    let until = httpdate::parse_http_date(retry_after).ok()?;
    let now = httpdate::parse_http_date(date?.trim()).ok()?;
    Some(believed(until.duration_since(now).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Option<&str> = Some("Wed, 21 Oct 2026 07:28:00 GMT");

    #[test]
    fn seconds_and_dates() {
        let seconds = |text, date| wait(text, date).map(|wait| wait.as_secs());
        assert_eq!(seconds("120", None), Some(120));
        assert_eq!(seconds(" 0 ", NOW), Some(0));
        assert_eq!(seconds("Wed, 21 Oct 2026 07:28:45 GMT", NOW), Some(45));
        assert_eq!(
            seconds("Wed, 21 Oct 2026 07:27:00 GMT", NOW),
            Some(0),
            "past"
        );
        assert_eq!(seconds("Wed, 21 Oct 2026 07:28:45 GMT", None), None);
        assert_eq!(seconds("Fri, 21 Oct 2050 07:28:45 GMT", NOW), Some(3600));
        assert_eq!(seconds("99999999999999999999999", NOW), Some(3600));
        for odd in ["", "-1", "soon", "1.5", "Wed, 21 Oct"] {
            assert_eq!(seconds(odd, NOW), None, "{odd:?}");
        }
    }
}
