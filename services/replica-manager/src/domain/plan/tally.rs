//! How many replicas are what, kept up act by act: a plan that asks for each of thousands must not count them
//! anew each time.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use crate::domain::replica::{Replica, Role};
use crate::domain::service::Service;

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// Ready and meant to stay.
    pub(super) ready: u32,
    /// Those that hold one of the wanted places.
    pub(super) members: u32,
    /// Everything that runs, may run, or will.
    pub(super) copies: u32,
    /// Copies that stand for others, as far as they are meant to stay.
    extras: BTreeMap<Role, u32>,
}

impl Tally {
    pub(super) fn of(service: &Service) -> Self {
        let mut tally = Self::default();
        for replica in service.replicas.values() {
            tally.add(replica);
        }
        tally
    }

    pub(super) fn add(&mut self, replica: &Replica) {
        self.ready += u32::from(replica.ready());
        self.copies += u32::from(!replica.at_rest());
        match replica.role {
            _ if replica.leaving() => {}
            Role::Member => self.members += 1,
            role @ (Role::Spare { .. } | Role::Surge { .. } | Role::Move { .. }) => {
                *self.extras.entry(role).or_default() += 1;
            }
        }
    }

    pub(super) fn remove(&mut self, replica: &Replica) {
        self.ready -= u32::from(replica.ready());
        self.copies -= u32::from(!replica.at_rest());
        match replica.role {
            _ if replica.leaving() => {}
            Role::Member => self.members -= 1,
            role @ (Role::Spare { .. } | Role::Surge { .. } | Role::Move { .. }) => {
                if let Entry::Occupied(mut count) = self.extras.entry(role) {
                    *count.get_mut() -= 1;
                    if *count.get() == 0 {
                        count.remove();
                    }
                }
            }
        }
    }

    /// Whether a copy stands for another in this way.
    pub(super) fn has(&self, role: Role) -> bool {
        self.extras.contains_key(&role)
    }
}
