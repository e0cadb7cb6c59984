//! What a service is meant to be, as its user knows it from the answers: pure, asks and does nothing.

use std::collections::BTreeMap;

use muster_proto::replicas::v1::{Service, ServiceIntent, ServiceSpec, env_var::Source};
use tonic::{Code, Status};

use super::{draw::Draw, processes::TAG};

/// What a user asks of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wish {
    Create { tag: String, replicas: i32 },
    Apply { tag: String, replicas: i32 },
    Scale(i32),
    Restart,
    RestartReplica(i32),
    Stop,
    Start,
    Rollback,
    Delete,
}

/// A service that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    /// What its version is known by.
    pub(super) tag: String,
    pub(super) replicas: i32,
    pub(super) runs: bool,
}

/// What is known of a service.
#[derive(Debug)]
pub(super) struct Expected {
    pub(super) name: String,
    /// Whether a failure may end it, at any time.
    pub(super) fails_fast: bool,
    /// Absent if there is none.
    pub(super) wanted: Option<Wanted>,
    /// It was deleted, and may be there for a while.
    leaving: bool,
    /// The tag and the replicas of each version.
    versions: BTreeMap<i64, (String, i32)>,
    applied: u32,
}

impl Wanted {
    /// What a record says; absent if it is being deleted.
    fn of(service: &Service) -> Option<Self> {
        let runs = match service.intent() {
            ServiceIntent::Run | ServiceIntent::Failed => true,
            ServiceIntent::Stop => false,
            ServiceIntent::Delete | ServiceIntent::Unspecified => return None,
        };
        let (tag, replicas) = version(service.spec.as_ref().unwrap());
        Some(Self {
            tag,
            replicas: service.scale.unwrap_or(replicas),
            runs,
        })
    }
}

/// The tag and the number of replicas of a spec.
fn version(spec: &ServiceSpec) -> (String, i32) {
    let env = &spec.run.as_ref().unwrap().env;
    let tag = env.iter().find(|variable| variable.name == TAG);
    let tag = tag.and_then(|variable| match &variable.source {
        Some(Source::Value(value)) => Some(value.clone()),
        Some(Source::Secret(_)) | None => None,
    });
    (tag.unwrap(), spec.replicas.unwrap().min.unwrap())
}

impl Expected {
    pub(super) fn nothing(name: &str, fails_fast: bool) -> Self {
        Self {
            name: name.to_owned(),
            fails_fast,
            wanted: None,
            leaving: false,
            versions: BTreeMap::new(),
            applied: 0,
        }
    }

    /// Something that can be asked of it, now and then what will be refused.
    pub(super) fn wish(&mut self, draw: &mut Draw) -> Wish {
        self.applied += 1;
        let tag = format!("{}-{}", self.name, self.applied);
        let (some, any) = (draw.number(1..4), draw.number(0..4));
        let create = Wish::Create {
            tag: tag.clone(),
            replicas: some,
        };
        let apply = Wish::Apply {
            tag,
            replicas: some,
        };
        let scale = Wish::Scale(any);
        let again = Wish::RestartReplica(any);
        let runs = self.wanted.as_ref().map(|wanted| wanted.runs);
        let weights = match runs {
            None => vec![(7, &apply), (3, &create), (1, &scale)],
            Some(true) => vec![
                (25, &apply),
                (25, &scale),
                (12, &Wish::Restart),
                (6, &again),
                (8, &Wish::Stop),
                (10, &Wish::Rollback),
                (12, &Wish::Delete),
                (2, &Wish::Start),
                (2, &create),
            ],
            Some(false) => vec![
                (40, &Wish::Start),
                (20, &apply),
                (15, &scale),
                (12, &Wish::Delete),
                (5, &Wish::Rollback),
                (4, &Wish::Restart),
            ],
        };
        draw.weighed(&weights).clone()
    }

    /// What is wanted once a wish was granted.
    fn after(&self, wish: &Wish) -> Option<Wanted> {
        let wanted = self.wanted.clone();
        match wish {
            Wish::Create { tag, replicas } | Wish::Apply { tag, replicas } => Some(Wanted {
                tag: tag.clone(),
                replicas: *replicas,
                runs: true,
            }),
            Wish::Scale(replicas) => wanted.map(|wanted| Wanted {
                replicas: *replicas,
                ..wanted
            }),
            Wish::Restart | Wish::RestartReplica(_) => wanted,
            Wish::Stop => wanted.map(|wanted| Wanted {
                runs: false,
                ..wanted
            }),
            Wish::Start => wanted.map(|wanted| Wanted {
                runs: true,
                ..wanted
            }),
            Wish::Rollback => wanted.map(|wanted| {
                let (tag, replicas) = self.versions.values().nth_back(1).unwrap().clone();
                Wanted {
                    tag,
                    replicas,
                    ..wanted
                }
            }),
            Wish::Delete => None,
        }
    }

    /// Whether a wish may be refused so.
    pub(super) fn may_refuse(&self, wish: &Wish, status: &Status) -> bool {
        let there = self.wanted.is_some();
        let code = status.code();
        if code == Code::NotFound {
            return !there || matches!(wish, Wish::RestartReplica(_));
        }
        if code == Code::AlreadyExists {
            return matches!(wish, Wish::Create { .. }) && (there || self.leaving);
        }
        code == Code::FailedPrecondition
            && match wish {
                Wish::Rollback if self.versions.len() < 2 => true,
                // A failed service takes it as little as a stopped one.
                Wish::Restart => {
                    self.leaving || self.fails_fast || self.wanted.as_ref().is_some_and(|w| !w.runs)
                }
                // The replica may be on its way out.
                Wish::RestartReplica(_) => true,
                Wish::Create { .. } => false,
                Wish::Apply { .. }
                | Wish::Scale(_)
                | Wish::Stop
                | Wish::Start
                | Wish::Rollback
                | Wish::Delete => self.leaving,
            }
    }

    /// A wish was granted.
    pub(super) fn granted(&mut self, wish: &Wish, answer: Option<&Service>) {
        let without_another = matches!(wish, Wish::Rollback) && self.versions.len() < 2;
        assert!(!without_another, "{self:?} was rolled back");
        let after = self.after(wish);
        if !matches!(wish, Wish::RestartReplica(_)) {
            let told = answer.and_then(Wanted::of);
            assert_eq!(
                told, after,
                "{wish:?} of {self:#?} was answered {answer:#?}"
            );
        }
        self.learn(answer, after);
    }

    /// Nobody knows whether a wish was granted, but this is what is there since.
    pub(super) fn found(&mut self, wish: &Wish, there: Option<&Service>) {
        let found = there.and_then(Wanted::of);
        let without_another = matches!(wish, Wish::Rollback) && self.versions.len() < 2;
        let granted = match without_another {
            true => None,
            false => self.after(wish),
        };
        let is_either = found == self.wanted || found == granted;
        assert!(is_either, "after {wish:?} of {self:#?} there is {there:#?}");
        self.leaving |= self.wanted.is_some() && found.is_none();
        self.learn(there, found);
    }

    fn learn(&mut self, service: Option<&Service>, wanted: Option<Wanted>) {
        self.leaving = wanted.is_none() && (self.leaving || self.wanted.is_some());
        self.wanted = wanted;
        if self.wanted.is_none() {
            self.versions.clear();
        } else if let Some(service) = service {
            let known = version(service.spec.as_ref().unwrap());
            self.versions
                .retain(|version, _| *version < service.version);
            self.versions.insert(service.version, known);
        }
    }

    /// What its replicas are known by once all is at rest; after an update that failed, what was before it.
    pub(super) fn tag(&self, version: Option<i64>) -> Option<&str> {
        match version {
            None => self.wanted.as_ref().map(|wanted| &*wanted.tag),
            Some(version) => self.versions.get(&version).map(|(tag, _)| &**tag),
        }
    }
}
