//! The steps of the demo as they are printed and timed.

use std::{future::Future, io::Write as _, time::Duration};

use tokio::time::Instant;

use crate::{
    failure::Failure,
    output::style::{Colours, Style},
};

/// A numbered step under way.
pub(crate) struct Step {
    number: u32,
    began: Instant,
    first: Instant,
    colours: Colours,
}

impl Step {
    /// Begins the first step.
    pub(crate) fn new(title: &str) -> Self {
        let now = Instant::now();
        let mut step = Self {
            number: 0,
            began: now,
            first: now,
            colours: Colours::of_stdout(),
        };
        step.next(title);
        step
    }

    /// Begins the next step.
    pub(crate) fn next(&mut self, title: &str) {
        self.number += 1;
        self.began = Instant::now();
        let title = format!("{}. {title}", self.number);
        print(&format!("\n{}", self.colours.paint(Style::Strong, &title)));
    }

    /// Prints a line of the step.
    pub(crate) fn say(&self, line: &str) {
        print(&format!("   {line}"));
    }

    /// Prints a spec.
    pub(crate) fn spec(&self, text: &str) {
        for line in text.trim().lines() {
            print(&self.colours.paint(Style::Dim, &format!("   | {line}")));
        }
    }

    /// Time since the step began.
    pub(crate) fn took(&self) -> String {
        millis(self.began.elapsed())
    }

    /// Ends the story.
    pub(crate) fn end(&self) {
        print(&format!(
            "\nThat was the whole story, in {}.",
            millis(self.first.elapsed())
        ));
        print("`muster up` starts a stack that stays; `muster --help` says what to do with it.");
    }
}

fn print(line: &str) {
    let mut stdout = std::io::stdout().lock();
    // A reader that has gone does not stop the story.
    let _ = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
}

/// A time as it is shown: `12.3 ms`, `1.20 s`.
pub(crate) fn millis(time: Duration) -> String {
    match time.as_millis() {
        0..10 => format!("{:.2} ms", time.as_secs_f64() * 1000.0),
        10..1000 => format!("{} ms", time.as_millis()),
        _ => format!("{:.2} s", time.as_secs_f64()),
    }
}

/// Fails the demo unless something holds.
pub(crate) fn check(holds: bool, otherwise: &str) -> Result<(), Failure> {
    if holds {
        Ok(())
    } else {
        Err(Failure::Failed(otherwise.to_owned()))
    }
}

/// What comes out in time.
pub(crate) async fn within<T>(
    patience: Duration,
    otherwise: &str,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let late = |_| Failure::Failed(format!("{otherwise} within {patience:?}"));
    tokio::time::timeout(patience, work).await.map_err(late)?
}

/// What `work` came to, and what `beside` had seen by then.
pub(crate) async fn first<T, S>(
    work: impl Future<Output = T>,
    beside: (
        tokio::sync::watch::Receiver<S>,
        impl Future<Output = Result<(), Failure>>,
    ),
) -> (T, S)
where
    S: Copy,
{
    let (seen, watching) = beside;
    let mut watching = std::pin::pin!(watching);
    let mut work = std::pin::pin!(work);
    let mut ended = false;
    let done = loop {
        tokio::select! {
            done = &mut work => break done,
            _ = &mut watching, if !ended => ended = true,
        }
    };
    let seen = *seen.borrow();
    (done, seen)
}
