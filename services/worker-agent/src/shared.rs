//! What all of the agent's loops share. Cheap to clone.

use std::sync::Arc;

use muster_runtime::context::Context;
use tokio::sync::watch;

use crate::agent::{Heard, Inbox};
use crate::cgroup::Groups;
use crate::config::Config;
use crate::data_dir::DataDir;
use crate::domain::holdings::Input;
use crate::measures::Measures;
use crate::standing::Standing;
use crate::view::View;

/// What all of the agent's loops share.
#[derive(Debug, Clone)]
pub(crate) struct Shared {
    pub(crate) config: Arc<Config>,
    pub(crate) context: Context,
    pub(crate) data: Arc<DataDir>,
    pub(crate) groups: Groups,
    pub(crate) standing: Standing,
    pub(crate) view: watch::Receiver<Arc<View>>,
    pub(crate) inbox: Inbox,
    pub(crate) measures: Measures,
}

impl Shared {
    /// Has the domain hear of something.
    pub(crate) async fn tell(&self, input: Input) {
        self.tell_agent(Heard::Input(input)).await;
    }

    /// Has the agent hear of something.
    pub(crate) async fn tell_agent(&self, heard: Heard) {
        // Closed: the agent's loop has ended, and with it the process.
        let _ = self.inbox.send(heard).await;
    }
}
