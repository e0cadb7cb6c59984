//! What agents report, and the ids in it.

use muster_proto::replicas::v1 as wire;

use super::parse_time;
use super::spec::parse_class;
use crate::domain::failure::Class;
use crate::domain::replica::attempt::{Address, End, Exit};
use crate::domain::replica::observe::{Report, ReportedPhase};
use crate::domain::time::Time;

/// The parts of an attempt's id: `uid.ordinal.number`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AttemptId {
    pub(crate) uid: String,
    pub(crate) ordinal: u32,
    pub(crate) number: u32,
}

pub(crate) fn parse_attempt_id(id: &str) -> Option<AttemptId> {
    let mut parts = id.split('.');
    let (uid, ordinal, number) = (parts.next()?, parts.next()?, parts.next()?);
    if uid.is_empty() || parts.next().is_some() {
        return None;
    }
    Some(AttemptId {
        uid: uid.to_owned(),
        ordinal: ordinal.parse().ok()?,
        number: number.parse().ok()?,
    })
}

/// The report; `None` if its phase is none that is known.
pub(crate) fn parse_report(report: &wire::AttemptReport, now: Time) -> Option<Report> {
    let phase = match wire::AttemptPhase::try_from(report.phase).ok()? {
        wire::AttemptPhase::Unspecified => return None,
        wire::AttemptPhase::Waiting => ReportedPhase::Waiting,
        wire::AttemptPhase::Starting => ReportedPhase::Starting,
        wire::AttemptPhase::Ready => ReportedPhase::Ready,
        wire::AttemptPhase::Unready => ReportedPhase::Unready,
        wire::AttemptPhase::Stopping => ReportedPhase::Stopping,
        wire::AttemptPhase::Ended => ReportedPhase::Ended(parse_end(report, now)),
    };
    Some(Report {
        phase,
        started: report.start_time.as_ref().and_then(parse_time),
        ready: report.ready_time.as_ref().and_then(parse_time),
        addresses: report.addresses.iter().map(parse_address).collect(),
    })
}

fn parse_address(address: &wire::PortAddress) -> Address {
    Address {
        number: u32::try_from(address.number).unwrap_or(0),
        name: address.name.clone(),
        address: address.address.clone(),
    }
}

fn parse_end(report: &wire::AttemptReport, now: Time) -> End {
    let class = wire::FailureClass::try_from(report.failure_class).unwrap_or_default();
    let stopped = report.stopped || report.interrupted;
    let class = match parse_class(class) {
        // Whoever stopped it, we did not: if we had, this is overruled.
        None if stopped => Class::Interruption,
        None => Class::Error,
        Some(class) => class,
    };
    End {
        at: report.end_time.as_ref().and_then(parse_time).unwrap_or(now),
        exit: report.exit.as_ref().map(parse_exit),
        class: Some(class),
        message: cut(&report.message, MOST_OF_MESSAGE),
        last_log_lines: last_lines(&report.last_log_lines),
    }
}

/// What the contract allows of log lines.
const MOST_LINES: usize = 20;

/// The same, of characters.
const MOST_CHARACTERS: usize = 1024;

/// Bytes that all log lines of an attempt take in its record. Every replica of a service may end at once, and
/// as many records as one transaction takes have to fit it whatever they print.
const MOST_OF_LINES: usize = 4096;

/// Bytes that the words of its end take there.
const MOST_OF_MESSAGE: usize = 1024;

/// The last lines that there is room for, in order.
fn last_lines(lines: &[String]) -> Vec<String> {
    let mut left = MOST_OF_LINES;
    let mut kept = Vec::new();
    for line in lines.iter().rev().take(MOST_LINES) {
        // Quotes and a comma.
        let Some(room) = left.checked_sub(3).filter(|room| *room > 0) else {
            break;
        };
        let line = cut(line, room);
        left = room - line.chars().map(stored_size).sum::<usize>();
        kept.push(line);
    }
    kept.reverse();
    kept
}

/// As much of a text as takes `room` bytes in a record, without control characters.
fn cut(text: &str, room: usize) -> String {
    let plain = text.chars().map(|c| if c == '\t' { ' ' } else { c });
    let plain = plain.filter(|c| !c.is_control()).take(MOST_CHARACTERS);
    let counted = plain.scan(0, |size, c| {
        *size += stored_size(c);
        (*size <= room).then_some(c)
    });
    counted.collect()
}

/// The bytes of a character in JSON.
fn stored_size(c: char) -> usize {
    match c {
        '"' | '\\' => 2,
        c => c.len_utf8(),
    }
}

fn parse_exit(exit: &wire::ExitStatus) -> Exit {
    Exit {
        code: exit.code,
        signal: exit.signal,
        out_of_memory: exit.out_of_memory,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempt_ids_have_three_parts() {
        let id = parse_attempt_id("abc.3.12").unwrap();
        assert_eq!((id.uid.as_str(), id.ordinal, id.number), ("abc", 3, 12));
        for wrong in [
            "",
            "abc",
            "abc.3",
            "abc.x.1",
            ".3.1",
            "abc.3.1.1",
            "abc.-1.2",
        ] {
            assert_eq!(parse_attempt_id(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn what_is_kept_of_a_log_is_its_end_and_bounded_as_it_is_stored() {
        let lines = |line: &str, count: usize| last_lines(&vec![line.to_owned(); count]);
        assert_eq!(lines("boom", 30), ["boom"; MOST_LINES]);
        assert_eq!(lines("\u{1b}[31mre\td\0", 1), ["[31mre d"]);
        let told: Vec<String> = (0..20).map(|line| format!("{line:01000}")).collect();
        assert_eq!(last_lines(&told)[1..], told[16..]);
        for wide in ["x", "\"", "\\", "\u{1f980}", "\u{7}", "\u{ffff}"] {
            let kept = lines(&wide.repeat(1024), 20);
            let stored = serde_json::to_vec(&kept).unwrap().len();
            assert!(stored <= MOST_OF_LINES + 1, "{stored} bytes of {wide:?}");
            let words = serde_json::to_vec(&cut(&wide.repeat(5000), MOST_OF_MESSAGE)).unwrap();
            assert!(words.len() <= MOST_OF_MESSAGE + 2, "{wide:?}");
        }
    }

    #[test]
    fn an_end_without_a_class_is_an_error_unless_someone_stopped_it() {
        let mut report = wire::AttemptReport {
            phase: wire::AttemptPhase::Ended.into(),
            ..wire::AttemptReport::default()
        };
        let class = |report: &wire::AttemptReport| {
            let phase = parse_report(report, Time::default()).unwrap().phase;
            let ReportedPhase::Ended(end) = phase else {
                panic!("{phase:?}");
            };
            end.class
        };
        assert_eq!(class(&report), Some(Class::Error));
        report.interrupted = true;
        assert_eq!(class(&report), Some(Class::Interruption));
        report.failure_class = wire::FailureClass::Oom.into();
        assert_eq!(class(&report), Some(Class::Oom));
    }
}
