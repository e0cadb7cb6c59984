//! The worker-registry as the manager uses it: what is asked of it, and what it tells.

pub(crate) mod calls;
pub(crate) mod claim;
pub(crate) mod credentials;
pub(crate) mod drains;
pub(crate) mod orphans;
pub(crate) mod watching;
