//! Finds again what the last process of the agent has left: attempts that run on under their
//! supervisors, and those that have ended meanwhile. It starts nothing, and stops only what nobody can
//! say any more what it is.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use muster_proto::replicas::v1 as wire;
use tokio::time::timeout;

use super::{Agent, Local, begin_minder, minder};
use crate::attempt_dir::AttemptDir;
use crate::domain::assignment::Assignment;
use crate::domain::attempt::Past;
use crate::domain::ids::AttemptId;
use crate::files;
use crate::grpc::convert;
use crate::log::reader;
use crate::machine;
use crate::minder::Task;
use crate::record;

/// For what nobody can say what it is to end.
const END_TIME: Duration = Duration::from_secs(10);

impl Agent {
    /// Adopts every attempt that has a folder.
    pub(super) async fn recover(&mut self) -> io::Result<()> {
        for id in self.data.attempts()? {
            let dir = self.data.attempt(&id);
            if record::forgotten_time(&dir).is_some() || remove_unbegun(&id, &dir)? {
                continue;
            }
            match assigned(&dir, &id)? {
                Some((wire, parsed)) => self.adopt(&id, &dir, wire, parsed),
                None => self.end(&id, &dir).await?,
            }
        }
        self.probe();
        Ok(())
    }

    /// Ends an attempt of which nobody can say what room it holds: before it has ended, that cannot be
    /// called free, and nothing be started in it.
    async fn end(&self, id: &AttemptId, dir: &AttemptDir) -> io::Result<()> {
        tracing::error!(attempt = %id, "its assignment cannot be read: it is ended");
        let minder = minder(
            &self.config,
            &self.groups,
            &self.inbox,
            (id, dir.clone()),
            None,
        );
        timeout(END_TIME, minder.end()).await.map_err(|_| {
            io::Error::other(format!(
                "{id}, whose assignment cannot be read, does not end"
            ))
        })?;
        if let Err(error) = record::set_forgotten(dir) {
            tracing::warn!(attempt = %id, %error, "it is ended once more after a restart");
        }
        Ok(())
    }

    fn adopt(
        &mut self,
        id: &AttemptId,
        dir: &AttemptDir,
        wire: wire::Assignment,
        parsed: Assignment,
    ) {
        let mut local = Local::new(Arc::new(wire), record::ports(dir));
        local.running = dir.running().ok().flatten();
        let running = local.running.as_ref();
        let in_this_boot = running.filter(|running| running.boot_id == machine::boot_id());
        let stop = dir.stop().ok().flatten().map(|stop| stop.cause);
        let past = Past {
            start_time: running.and_then(|running| running.start_time),
            started: in_this_boot.and_then(|running| running.started),
            ready: record::readiness(dir),
            stop: stop.clone(),
        };
        let now = self.now();
        if let Ok(Some(exit)) = dir.exit() {
            let lines = reader::last(dir.path(), 20).unwrap_or_default();
            local.last_lines = lines.into_iter().map(|line| line.text).collect();
            // Who was asked when it ended, if anyone was, is gone.
            let unexplained = exit.may_be_for_want_of_accelerator(stop.as_ref());
            let exit = match self
                .looks
                .gone_at_start(&parsed.gpus)
                .filter(|_| unexplained)
            {
                Some(gpu) => exit.for_want_of(gpu),
                None => exit,
            };
            self.holdings.adopt_ended(parsed, past, exit, now);
            tracing::info!(attempt = %id, "had ended");
        } else {
            self.holdings.adopt(parsed, past, now);
            let adopt = begin_minder(
                &self.config,
                &self.groups,
                &self.context,
                &self.inbox,
                (id, dir.clone()),
                local.container(&self.config),
                Task::Adopt,
            );
            local.orders = Some(adopt);
            tracing::info!(attempt = %id, "found again");
        }
        self.locals.insert(id.clone(), local);
    }
}

/// Removes the folder of an attempt that no supervisor has begun; whether it did. It is started when
/// it is assigned again: it may run elsewhere by now.
fn remove_unbegun(id: &AttemptId, dir: &AttemptDir) -> io::Result<bool> {
    let Some(_lock) = dir.try_lock()? else {
        return Ok(false);
    };
    if dir.has_begun()? {
        return Ok(false);
    }
    tracing::warn!(attempt = %id, "it was not begun: its folder is removed");
    if let Err(error) = dir.remove() {
        tracing::warn!(attempt = %id, %error, "a folder of nothing is left");
    }
    Ok(true)
}

/// What was assigned; nothing if that makes no sense.
fn assigned(
    dir: &AttemptDir,
    id: &AttemptId,
) -> io::Result<Option<(wire::Assignment, Assignment)>> {
    let wire = match record::assignment(dir) {
        Err(error) if files::is_garbled(&error) => return Ok(None),
        other => other?,
    };
    Ok(wire.and_then(|wire| {
        let parsed = convert::parse_assignment(&wire).ok().flatten()?;
        (parsed.attempt == *id).then_some((wire, parsed))
    }))
}
