//! Finds again what the last process of the agent has left: attempts that run on under their
//! supervisors, and those that have ended meanwhile. It stops nothing.

use std::io;
use std::sync::Arc;

use super::{Agent, Local, begin_minder};
use crate::attempt_dir::AttemptDir;
use crate::domain::assignment::Assignment;
use crate::domain::attempt::Past;
use crate::domain::ids::AttemptId;
use crate::grpc::convert;
use crate::log::reader;
use crate::minder::Task;
use crate::plan;
use crate::record;

impl Agent {
    /// Adopts every attempt that has a folder.
    pub(super) fn recover(&mut self) -> io::Result<()> {
        for id in self.data.attempts()? {
            let dir = self.data.attempt(&id);
            if record::forgotten_time(&dir).is_some() {
                continue;
            }
            match assigned(&dir, &id) {
                Some((wire, parsed)) => self.adopt(&id, &dir, wire, parsed),
                None => {
                    tracing::warn!(attempt = %id, "its folder was only half made, and is removed");
                    if let Err(error) = dir.remove() {
                        tracing::warn!(attempt = %id, %error, "a folder that was half made is left");
                    }
                }
            }
        }
        self.probe();
        Ok(())
    }

    fn adopt(
        &mut self,
        id: &AttemptId,
        dir: &AttemptDir,
        wire: muster_proto::replicas::v1::Assignment,
        parsed: Assignment,
    ) {
        let mut local = Local::new(Arc::new(wire), record::ports(dir));
        local.running = dir.running().ok().flatten();
        let past = Past {
            start_time: local
                .running
                .as_ref()
                .and_then(|running| running.start_time),
            ready: record::readiness(dir),
            stop: dir.stop().ok().flatten().map(|stop| stop.cause),
        };
        let now = self.now();
        if let Ok(Some(exit)) = dir.exit() {
            let lines = reader::last(dir.path(), 20).unwrap_or_default();
            local.last_lines = lines.into_iter().map(|line| line.text).collect();
            self.holdings.adopt_ended(parsed, past, exit, now);
            tracing::info!(attempt = %id, "had ended");
        } else {
            self.holdings.adopt(parsed, past, now);
            let adopt = begin_minder(
                &self.config,
                &self.context,
                &self.inbox,
                (id, dir.clone()),
                plan::container(&local.assignment, &local.ports, &self.config.docker_socket),
                Task::Adopt,
            );
            local.orders = Some(adopt);
            tracing::info!(attempt = %id, "found again");
        }
        self.locals.insert(id.clone(), local);
    }
}

/// What was assigned, if the folder is whole.
fn assigned(
    dir: &AttemptDir,
    id: &AttemptId,
) -> Option<(muster_proto::replicas::v1::Assignment, Assignment)> {
    dir.spec().ok()?;
    let wire = record::assignment(dir)?;
    let parsed = convert::parse_assignment(&wire).ok().flatten()?;
    (parsed.attempt == *id).then_some((wire, parsed))
}
