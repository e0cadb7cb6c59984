//! What each command does, a file each. A command asks, prints, and says how it
//! ended; it decides nothing of its own.

pub(crate) mod apply;
pub(crate) mod backends;
pub(crate) mod backup;
pub(crate) mod certs;
pub(crate) mod change;
pub(crate) mod diff;
pub(crate) mod each;
pub(crate) mod endpoints;
pub(crate) mod events;
pub(crate) mod explain;
pub(crate) mod follow;
pub(crate) mod health;
pub(crate) mod live;
pub(crate) mod logs;
pub(crate) mod offers;
pub(crate) mod orphans;
pub(crate) mod ps;
pub(crate) mod services;
pub(crate) mod token;
pub(crate) mod worker;
pub(crate) mod workers;
