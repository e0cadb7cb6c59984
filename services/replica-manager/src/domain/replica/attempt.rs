//! One try to run a replica, and how it ended.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::domain::failure::Class;
use crate::domain::time::Time;

/// One try to run a replica.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Attempt {
    /// From 1, or from the restore of the store; never used again for its replica.
    pub number: u32,
    /// The version that it runs.
    pub version: u64,
    /// The room it has or had.
    pub allocation: Option<Allocation>,
    /// When its process or container started.
    pub started: Option<Time>,
    /// When it was ready first.
    pub ready: Option<Time>,
    /// How it ended.
    pub end: Option<End>,
    /// Where its ports are reached.
    pub addresses: Vec<Address>,
    /// The store was restored, and no agent has said since that anything of it runs.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unconfirmed: bool,
}

/// Room on a worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allocation {
    /// The registry's id of it.
    pub id: String,
    /// The worker.
    pub worker: String,
    /// The worker's generation when it was made.
    pub generation: u64,
    /// The worker's region; empty is none.
    pub region: String,
    /// The accelerators, by uuid.
    pub gpu_uuids: Vec<String>,
    /// Of two for one accelerator the agent serves the higher.
    pub fencing_token: String,
    /// The room that it took over, which has to end first; empty is none.
    pub replaces: String,
    /// Ports of the host.
    pub host_ports: Vec<u32>,
    /// When it was made.
    pub at: Time,
}

impl Allocation {
    /// One on w1 with this id, of which nothing else is known.
    #[cfg(test)]
    pub(crate) fn on_w1(id: &str) -> Self {
        Self {
            id: id.to_owned(),
            worker: "w1".to_owned(),
            generation: 1,
            region: String::new(),
            gpu_uuids: Vec::new(),
            fencing_token: String::new(),
            replaces: String::new(),
            host_ports: Vec::new(),
            at: Time::default(),
        }
    }
}

/// Where a port is reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// The logical port.
    pub number: u32,
    /// Its name; empty is none.
    pub name: String,
    /// HOST:PORT.
    pub address: String,
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// When.
    pub at: Time,
    /// The process's own word; `None` if it is not known.
    pub exit: Option<Exit>,
    /// Why it failed; `None` if it was stopped as intended.
    pub class: Option<Class>,
    /// The same in words.
    pub message: String,
    /// The last lines of its log, if it failed.
    pub last_log_lines: Vec<String>,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// The exit code; `None` if a signal ended it or it is not known.
    pub code: Option<i32>,
    /// The signal; 0 is none.
    pub signal: i32,
    /// It was killed for using too much memory.
    pub out_of_memory: bool,
}

impl Attempt {
    /// An attempt that has nothing yet.
    #[must_use]
    pub fn new(number: u32, version: u64) -> Self {
        Self {
            number,
            version,
            allocation: None,
            started: None,
            ready: None,
            end: None,
            addresses: Vec::new(),
            unconfirmed: false,
        }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.code, self.signal) {
            _ if self.out_of_memory => formatter.write_str("killed for using too much memory"),
            (Some(code), _) => write!(formatter, "exited with code {code}"),
            (None, 0) => formatter.write_str("ended in an unknown way"),
            (None, signal) => write!(formatter, "killed by signal {signal}"),
        }
    }
}

/// In one line: `killed by SIGKILL (ERROR)`.
impl fmt::Display for End {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The agent's words name the exit too, and know more of it.
        match self.exit {
            _ if !self.message.is_empty() => formatter.write_str(&self.message)?,
            Some(exit) => write!(formatter, "{exit}")?,
            None => formatter.write_str("ended")?,
        }
        match self.class {
            Some(class) => write!(formatter, " ({class})"),
            None => Ok(()),
        }
    }
}
