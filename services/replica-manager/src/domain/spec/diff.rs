//! What differs between two specs, and what that does to replicas that run.

use super::Spec;

/// What a change does to what runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effect {
    /// Nothing changes.
    None,
    /// Takes effect without a restart.
    InPlace,
    /// Replicas are replaced by a rolling update.
    Rolling,
}

/// The difference between two specs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diff {
    /// Paths that changed, in the order of the fields: `run.command`.
    pub paths: Vec<String>,
    /// The strongest effect of any.
    pub effect: Effect,
}

/// Compares two specs of one service.
#[must_use]
pub fn diff(old: &Spec, new: &Spec) -> Diff {
    let mut differing = Differing(Diff {
        paths: Vec::new(),
        effect: Effect::None,
    });
    use Effect::{InPlace, Rolling};
    differing.note(
        "replicas.min",
        old.replicas.min != new.replicas.min,
        InPlace,
    );
    differing.note(
        "replicas.max",
        old.replicas.max != new.replicas.max,
        InPlace,
    );
    run(old, new, &mut differing);
    differing.note("resources", old.resources != new.resources, Rolling);
    differing.note("placement", old.placement != new.placement, Rolling);
    let timeout = old.start_timeout != new.start_timeout;
    differing.note("start.timeout", timeout, InPlace);
    differing.note(
        "probes.ready",
        old.probes.ready != new.probes.ready,
        Rolling,
    );
    differing.note(
        "probes.alive",
        old.probes.alive != new.probes.alive,
        Rolling,
    );
    differing.note("min_healthy", old.min_healthy != new.min_healthy, InPlace);
    differing.note("retry", old.retry != new.retry, InPlace);
    differing.note("scaling", old.scaling != new.scaling, InPlace);
    update(old, new, &mut differing);
    differing.note("stop.grace", old.stop_grace != new.stop_grace, InPlace);
    let disconnect = old.on_disconnect != new.on_disconnect;
    differing.note("on_disconnect", disconnect, Rolling);
    differing.note("labels", old.labels != new.labels, InPlace);
    differing.0
}

struct Differing(Diff);

impl Differing {
    fn note(&mut self, path: &str, differs: bool, effect: Effect) {
        if differs {
            self.0.paths.push(path.to_owned());
            self.0.effect = self.0.effect.max(effect);
        }
    }
}

fn run(old: &Spec, new: &Spec, differing: &mut Differing) {
    use Effect::Rolling;
    let (old, new) = (&old.run, &new.run);
    differing.note("run.runtime", old.runtime != new.runtime, Rolling);
    differing.note("run.command", old.command != new.command, Rolling);
    differing.note("run.env", old.env != new.env, Rolling);
    differing.note("run.ports", old.ports != new.ports, Rolling);
    differing.note("run.volumes", old.volumes != new.volumes, Rolling);
    let working_dir = old.working_dir != new.working_dir;
    differing.note("run.working_dir", working_dir, Rolling);
}

fn update(old: &Spec, new: &Spec, differing: &mut Differing) {
    use Effect::InPlace;
    let (old, new) = (old.update, new.update);
    differing.note("update.max_surge", old.max_surge != new.max_surge, InPlace);
    let unavailable = old.max_unavailable != new.max_unavailable;
    differing.note("update.max_unavailable", unavailable, InPlace);
    differing.note("update.min_ready", old.min_ready != new.min_ready, InPlace);
    let deadline = old.progress_deadline != new.progress_deadline;
    differing.note("update.progress_deadline", deadline, InPlace);
}

#[cfg(test)]
mod tests;
