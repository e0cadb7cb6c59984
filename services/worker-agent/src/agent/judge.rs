//! Why an attempt ended, where its supervisor cannot know: who loses an accelerator may be the first to notice, and
//! ends by itself. So the driver is asked before anyone is told, for a bounded time.

use super::{Agent, Heard};
use crate::domain::attempt::Phase;
use crate::domain::end::Exit;
use crate::domain::holdings::Input;
use crate::domain::ids::AttemptId;

impl Agent {
    /// An attempt has ended: tells why, now or once the driver has been asked.
    pub(super) fn ended(&mut self, id: AttemptId, exit: Exit, lines: Vec<String>) {
        let unexplained = self.is_unexplained(&id, &exit);
        let gpus = self.locals.get_mut(&id).map_or_else(Vec::new, |local| {
            local.last_lines = lines;
            local.orders = None;
            // Nothing answers any more, which says nothing of why.
            (local.ready, local.alive, local.exited) = (None, None, true);
            local.assignment.gpu_uuids.clone()
        });
        if gpus.is_empty() || !self.looks.are_taken() || !unexplained {
            self.decide(Input::Exited(id, exit));
            return;
        }
        let (looks, inbox) = (self.looks.clone(), self.inbox.clone());
        self.context
            .tasks
            .spawn("why an attempt ended", async move {
                let exit = match looks.gone(&gpus).await {
                    Some(gpu) => exit.for_want_of(gpu),
                    None => exit,
                };
                // Closed: the agent ends, and its successor will look for itself.
                let _ = inbox.send(Heard::Input(Input::Exited(id, exit))).await;
            });
    }

    fn is_unexplained(&self, id: &AttemptId, exit: &Exit) -> bool {
        let phase = self.holdings.get(id).map(|attempt| attempt.phase());
        match phase {
            Some(Phase::Stopping(cause)) => exit.may_be_for_want_of_accelerator(Some(cause)),
            Some(
                Phase::Waiting
                | Phase::Starting
                | Phase::Running(_)
                | Phase::Ready
                | Phase::Unready,
            ) => exit.may_be_for_want_of_accelerator(None),
            Some(Phase::Ended(_)) | None => false,
        }
    }
}
