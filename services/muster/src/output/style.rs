//! Colours, on a terminal only.

use std::io::IsTerminal as _;

/// How a text looks on a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Style {
    /// As it is.
    #[default]
    Plain,
    /// It is well.
    Good,
    /// It needs a look.
    Warning,
    /// It is not well.
    Bad,
    /// It matters less.
    Dim,
    /// It matters more.
    Strong,
}

/// Whether to write colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Colours {
    /// Write them.
    On,
    /// Write plain text.
    Off,
}

impl Colours {
    /// On if standard output is a terminal and `NO_COLOR` is not set.
    pub(crate) fn of_stdout() -> Self {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        if wanted && std::io::stdout().is_terminal() {
            Self::On
        } else {
            Self::Off
        }
    }

    /// The text in its style.
    pub(crate) fn paint(self, style: Style, text: &str) -> String {
        let code = match (self, style) {
            (Self::Off, _) | (Self::On, Style::Plain) => return text.to_owned(),
            (Self::On, Style::Good) => "32",
            (Self::On, Style::Warning) => "33",
            (Self::On, Style::Bad) => "31",
            (Self::On, Style::Dim) => "2",
            (Self::On, Style::Strong) => "1",
        };
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }
}

/// How a state's word looks: what is well green, what is not red.
pub(crate) fn of_word(word: &str) -> Style {
    match word {
        "HEALTHY" | "READY" | "ACTIVE" | "ALIVE" | "SERVING" | "OK" | "AVAILABLE" | "IDLE"
        | "FRESH" | "PASSED" | "DISABLED" => Style::Good,
        "DEGRADED" | "BACKOFF" | "UNREADY" | "DRAINING" | "SUSPECT" | "STALE" | "STOPPING"
        | "WARNING" | "TIMED_OUT" | "BREAKER_OPEN" => Style::Warning,
        "DOWN" | "FAILED" | "LOST" | "NOT_SERVING" | "UNREACHABLE" | "NO_CAPACITY" | "NO_QUOTA"
        | "NO_BALANCE" | "NONE" | "ERROR" => Style::Bad,
        _ => Style::Plain,
    }
}
