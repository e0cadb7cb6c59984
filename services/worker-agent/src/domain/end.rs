//! How an attempt came to its end, in the words that others act on: what stopped it, of which class
//! its failure is, and whether it was one at all.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

/// Why the agent stops an attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum StopCause {
    /// Its assignment says so; why, in words.
    Assigned(String),
    /// The registry takes its room.
    Released,
    /// A drain's deadline has passed with force.
    ForcedDrain,
    /// This worker has a later generation: it has registered elsewhere, or was disabled by force while it was lost.
    Superseded,
    /// The agent ends, and nothing runs on without it.
    AgentEnds,
    /// Its accelerators were given to a later attempt.
    Outranked,
    /// The machine does not have this one of its accelerators any more.
    AcceleratorGone(String),
    /// Its liveness probe failed; what it said.
    NotAlive(String),
    /// It was not ready in time; what its probe said last.
    NotReadyInTime(String),
}

/// Of which kind a failure is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureClass {
    /// The machine, and not the replica, is at fault.
    Interruption,
    /// It exited, with whatever code.
    Error,
    /// It was killed for using too much memory.
    OutOfMemory,
    /// Its liveness probe failed.
    Probe,
    /// It was not ready in time.
    StartTimeout,
    /// Its image cannot be had, or no container made of it.
    Image,
    /// It cannot be started as its spec says.
    Config,
}

/// What brought an end about, as its supervisor saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExitCause {
    /// It ended by itself.
    Exited,
    /// It was asked to stop.
    Stopped,
    /// The lease ended.
    Fenced,
    /// Its supervisor was told to end, by whoever ends processes of the machine.
    Interrupted,
    /// The command cannot be executed as the spec says.
    NotExecutable,
    /// The image cannot be had, or no container made of it.
    NoImage,
    /// The machine refused to start it for a reason of its own.
    NotStarted,
    /// Its supervisor died, and the agent ended what was left.
    Abandoned,
    /// The machine was restarted.
    MachineRestarted,
    /// Its folder was removed while it ran, and the agent ended what was left.
    FolderGone,
    /// It ended by itself, and the machine had lost an accelerator of its: not known to its supervisor, but to
    /// the agent, which has asked the driver.
    AcceleratorGone,
}

impl ExitCause {
    /// Whether no folder may be there to say so once more.
    pub fn is_unrecorded(self) -> bool {
        matches!(self, Self::NotStarted | Self::FolderGone)
    }
}

/// What is known of the exit itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// What brought it about.
    pub cause: ExitCause,
    /// The exit code; absent if a signal ended it, or it never ran.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// It was killed for using too much memory.
    pub out_of_memory: bool,
    /// When it had ended.
    pub time: SystemTime,
    /// What there is to say beyond code and signal; may be empty.
    pub message: String,
}

impl Exit {
    /// Of something that the machine could not start, for a reason of its own.
    pub fn not_started(message: String, time: SystemTime) -> Self {
        Self {
            cause: ExitCause::NotStarted,
            code: None,
            signal: None,
            out_of_memory: false,
            time,
            message,
        }
    }

    /// Whether the want of an accelerator may have brought it about, where it was being stopped for `stop`.
    pub fn may_be_for_want_of_accelerator(&self, stop: Option<&StopCause>) -> bool {
        let unexplained = match stop {
            None => self.cause == ExitCause::Exited,
            Some(StopCause::NotAlive(_) | StopCause::NotReadyInTime(_)) => true,
            Some(
                StopCause::Assigned(_)
                | StopCause::Released
                | StopCause::ForcedDrain
                | StopCause::Superseded
                | StopCause::AgentEnds
                | StopCause::Outranked
                | StopCause::AcceleratorGone(_),
            ) => false,
        };
        unexplained && !self.out_of_memory
    }

    /// The same, where the driver has said that `gpu` is gone.
    #[must_use]
    pub fn for_want_of(self, gpu: &str) -> Self {
        Self {
            cause: ExitCause::AcceleratorGone,
            message: gone(gpu),
            ..self
        }
    }
}

fn gone(gpu: &str) -> String {
    format!("its accelerator {gpu} is gone from the machine")
}

/// An attempt's end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// When.
    pub time: SystemTime,
    /// The exit code; absent if a signal ended it, or it never ran.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// It was killed for using too much memory.
    pub out_of_memory: bool,
    /// Of which kind the failure is; absent if it was told to end.
    pub class: Option<FailureClass>,
    /// Why it ended, in words.
    pub message: String,
    /// It ended because it was told to.
    pub stopped: bool,
    /// It was not its assignment that told it to.
    pub interrupted: bool,
}

impl End {
    /// The end of something that ran, or was to run, and that was being stopped for `stop`.
    pub fn of(exit: &Exit, stop: Option<&StopCause>) -> Self {
        let verdict = match (exit.cause, stop) {
            (ExitCause::Fenced, _) => {
                Verdict::told("its machine was cut off: the lease ended".to_owned(), true)
            }
            (ExitCause::Interrupted, None) => {
                Verdict::told("its supervisor was told to end".to_owned(), true)
            }
            (ExitCause::Stopped, None) => Verdict::told(String::new(), false),
            // It is why it did not answer.
            (
                ExitCause::AcceleratorGone,
                Some(StopCause::NotAlive(_) | StopCause::NotReadyInTime(_)),
            ) => Verdict::failed(FailureClass::Interruption, words(exit)),
            // It noticed first, and what it said of that is worth keeping.
            (
                ExitCause::Exited | ExitCause::AcceleratorGone,
                Some(StopCause::AcceleratorGone(gpu)),
            ) => {
                let said = words(&exit.clone().for_want_of(gpu));
                Verdict::failed(FailureClass::Interruption, said)
            }
            (_, Some(cause)) => Verdict::of_stop(cause),
            (cause, None) => Verdict::failed(class_of(cause, exit.out_of_memory), words(exit)),
        };
        verdict.into_end(exit)
    }

    /// The end of something that was never started, because of `stop`.
    pub fn unstarted(stop: &StopCause, time: SystemTime) -> Self {
        Self::unrun(Verdict::of_stop(stop), time)
    }

    /// The end of something that must not be started: its room is not, or no longer, its own.
    pub fn refused(message: String, time: SystemTime) -> Self {
        Self::unrun(Verdict::told(message, true), time)
    }

    /// The end of something that cannot be started for what its assignment says.
    pub fn misfit(message: String, time: SystemTime) -> Self {
        Self::unrun(Verdict::failed(FailureClass::Config, message), time)
    }

    fn unrun(verdict: Verdict, time: SystemTime) -> Self {
        verdict.into_end(&Exit {
            cause: ExitCause::Stopped,
            code: None,
            signal: None,
            out_of_memory: false,
            time,
            message: String::new(),
        })
    }
}

/// What an end means.
struct Verdict {
    class: Option<FailureClass>,
    message: String,
    stopped: bool,
    interrupted: bool,
}

impl Verdict {
    fn told(message: String, interrupted: bool) -> Self {
        Self {
            class: None,
            message,
            stopped: true,
            interrupted,
        }
    }

    fn failed(class: FailureClass, message: String) -> Self {
        Self {
            class: Some(class),
            message,
            stopped: false,
            interrupted: false,
        }
    }

    fn of_stop(cause: &StopCause) -> Self {
        let interrupted = |words: &str| Self::told(words.to_owned(), true);
        match cause {
            StopCause::Assigned(reason) => Self::told(reason.clone(), false),
            StopCause::Released => interrupted("the registry took its room back"),
            StopCause::ForcedDrain => interrupted("the drain's deadline passed"),
            StopCause::Superseded => interrupted(
                "its worker has registered elsewhere, or was disabled by force while lost",
            ),
            StopCause::AgentEnds => interrupted("its agent was told to end"),
            StopCause::Outranked => interrupted("its accelerators were given to a later attempt"),
            StopCause::AcceleratorGone(gpu) => Self::failed(FailureClass::Interruption, gone(gpu)),
            StopCause::NotAlive(said) => {
                Self::failed(FailureClass::Probe, format!("not alive: {said}"))
            }
            StopCause::NotReadyInTime(said) if said.is_empty() => {
                Self::failed(FailureClass::StartTimeout, "not ready in time".to_owned())
            }
            StopCause::NotReadyInTime(said) => Self::failed(
                FailureClass::StartTimeout,
                format!("not ready in time: {said}"),
            ),
        }
    }

    fn into_end(self, exit: &Exit) -> End {
        End {
            time: exit.time,
            code: exit.code,
            signal: exit.signal,
            out_of_memory: exit.out_of_memory,
            class: self.class,
            message: self.message,
            stopped: self.stopped,
            interrupted: self.interrupted,
        }
    }
}

fn class_of(cause: ExitCause, out_of_memory: bool) -> FailureClass {
    match cause {
        ExitCause::NotExecutable => FailureClass::Config,
        ExitCause::NoImage => FailureClass::Image,
        ExitCause::NotStarted
        | ExitCause::Interrupted
        | ExitCause::Abandoned
        | ExitCause::MachineRestarted
        | ExitCause::FolderGone
        | ExitCause::AcceleratorGone => FailureClass::Interruption,
        ExitCause::Exited | ExitCause::Stopped | ExitCause::Fenced if out_of_memory => {
            FailureClass::OutOfMemory
        }
        ExitCause::Exited | ExitCause::Stopped | ExitCause::Fenced => FailureClass::Error,
    }
}

fn words(exit: &Exit) -> String {
    let how = match (exit.code, exit.signal) {
        (Some(code), _) => format!("exited with code {code}"),
        (None, Some(signal)) => format!("killed by {}", signal_name(signal)),
        (None, None) => String::new(),
    };
    let memory = if exit.out_of_memory {
        "out of memory"
    } else {
        ""
    };
    [memory, &how, &exit.message]
        .into_iter()
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>()
        .join(": ")
}

fn signal_name(signal: i32) -> String {
    let name = match signal {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL",
        11 => "SIGSEGV",
        13 => "SIGPIPE",
        15 => "SIGTERM",
        _ => return format!("signal {signal}"),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exit(cause: ExitCause) -> Exit {
        Exit {
            cause,
            code: None,
            signal: None,
            out_of_memory: false,
            time: SystemTime::UNIX_EPOCH,
            message: String::new(),
        }
    }

    fn check(exit: &Exit, stop: Option<&StopCause>) -> (Option<FailureClass>, bool, bool, String) {
        let end = End::of(exit, stop);
        (end.class, end.stopped, end.interrupted, end.message)
    }

    #[test]
    fn failures_have_their_class() {
        for (cause, class) in [
            (ExitCause::Exited, FailureClass::Error),
            (ExitCause::NotExecutable, FailureClass::Config),
            (ExitCause::NoImage, FailureClass::Image),
            (ExitCause::NotStarted, FailureClass::Interruption),
            (ExitCause::Abandoned, FailureClass::Interruption),
            (ExitCause::MachineRestarted, FailureClass::Interruption),
            (ExitCause::FolderGone, FailureClass::Interruption),
            (ExitCause::AcceleratorGone, FailureClass::Interruption),
        ] {
            let (found, stopped, interrupted, _) = check(&exit(cause), None);
            assert_eq!(
                (found, stopped, interrupted),
                (Some(class), false, false),
                "{cause:?}"
            );
        }
        let killed = Exit {
            signal: Some(9),
            out_of_memory: true,
            ..exit(ExitCause::Exited)
        };
        assert_eq!(
            check(&killed, None),
            (
                Some(FailureClass::OutOfMemory),
                false,
                false,
                "out of memory: killed by SIGKILL".into()
            )
        );
        let plain = Exit {
            code: Some(0),
            ..exit(ExitCause::Exited)
        };
        assert_eq!(check(&plain, None).3, "exited with code 0");
    }

    #[test]
    fn what_was_told_to_end_has_not_failed() {
        let stopped = exit(ExitCause::Stopped);
        for (cause, interrupted) in [
            (StopCause::Assigned("scaled down".into()), false),
            (StopCause::Released, true),
            (StopCause::ForcedDrain, true),
            (StopCause::Superseded, true),
            (StopCause::AgentEnds, true),
            (StopCause::Outranked, true),
        ] {
            let (class, was_stopped, was_interrupted, message) = check(&stopped, Some(&cause));
            assert_eq!(
                (class, was_stopped, was_interrupted),
                (None, true, interrupted),
                "{cause:?}"
            );
            assert!(!message.is_empty());
        }
        for cause in [ExitCause::Fenced, ExitCause::Interrupted] {
            let told = check(&exit(cause), None);
            assert_eq!((told.0, told.1, told.2), (None, true, true), "{cause:?}");
        }
        let asked = check(
            &exit(ExitCause::Interrupted),
            Some(&StopCause::Assigned("scaled down".into())),
        );
        assert_eq!((asked.2, asked.3.as_str()), (false, "scaled down"));
        let untold = check(&stopped, None);
        assert_eq!((untold.0, untold.1, untold.2), (None, true, false));
    }

    #[test]
    fn a_gone_accelerator_is_an_interruption_whoever_noticed_first() {
        let gpu = || "GPU-7".to_owned();
        let stopped = check(
            &exit(ExitCause::Stopped),
            Some(&StopCause::AcceleratorGone(gpu())),
        );
        let words = "its accelerator GPU-7 is gone from the machine";
        let interruption = Some(FailureClass::Interruption);
        assert_eq!(stopped, (interruption, false, false, words.into()));
        let crashed = Exit {
            code: Some(1),
            ..exit(ExitCause::Exited)
        };
        assert!(crashed.may_be_for_want_of_accelerator(None));
        let said = format!("exited with code 1: {words}");
        let noticed = (interruption, false, false, said);
        let cause = StopCause::AcceleratorGone(gpu());
        assert_eq!(check(&crashed, Some(&cause)), noticed);
        let crashed = crashed.for_want_of("GPU-7");
        assert_eq!(check(&crashed, Some(&cause)), noticed);
        assert_eq!(check(&crashed, None), noticed);
        let probed = [
            StopCause::NotAlive("refused".into()),
            StopCause::NotReadyInTime(String::new()),
        ];
        for cause in probed {
            let killed = exit(ExitCause::Stopped);
            assert!(killed.may_be_for_want_of_accelerator(Some(&cause)));
            let killed = check(&killed.for_want_of("GPU-7"), Some(&cause));
            assert_eq!(killed, (interruption, false, false, words.into()));
        }
    }

    #[test]
    fn what_has_another_reason_needs_no_look_at_accelerators() {
        let may = |exit: &Exit, stop| exit.may_be_for_want_of_accelerator(stop);
        let memory = Exit {
            out_of_memory: true,
            ..exit(ExitCause::Exited)
        };
        assert!(!may(&memory, None));
        assert!(!may(&exit(ExitCause::MachineRestarted), None));
        let asked = StopCause::Assigned("scaled down".into());
        assert!(!may(&exit(ExitCause::Exited), Some(&asked)));
        let told = check(&exit(ExitCause::Exited).for_want_of("GPU-7"), Some(&asked));
        assert_eq!((told.0, told.3.as_str()), (None, "scaled down"));
    }

    #[test]
    fn what_a_probe_ended_has_failed() {
        let stopped = exit(ExitCause::Stopped);
        assert_eq!(
            check(&stopped, Some(&StopCause::NotAlive("refused".into()))),
            (
                Some(FailureClass::Probe),
                false,
                false,
                "not alive: refused".into()
            )
        );
        assert_eq!(
            check(&stopped, Some(&StopCause::NotReadyInTime(String::new()))).0,
            Some(FailureClass::StartTimeout)
        );
    }
}
