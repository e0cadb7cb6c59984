//! The keys of the records. A service's own record carries project and name, so that two creations of one
//! name meet; all else keys on its uid, which is never used again.

/// Every service's own record.
pub(crate) const SERVICES: &str = "service/";
/// Every replica.
pub(crate) const REPLICAS: &str = "replica/";
/// Every kept version of a spec.
pub(crate) const VERSIONS: &str = "version/";
/// What happened, in order.
pub(crate) const EVENTS: &str = "event/";
/// Request ids that were used.
pub(crate) const REQUESTS: &str = "request/";

/// The registry's public keys, as it told them last.
pub(crate) const CREDENTIAL_KEYS: &str = "credential-keys";

/// What agents run that no other record knows.
pub(crate) const ORPHANS: &str = "orphan/";

pub(crate) fn service(project: &str, name: &str) -> String {
    format!("{SERVICES}{project}/{name}")
}

pub(crate) fn replica(uid: &str, ordinal: u32) -> String {
    format!("{REPLICAS}{uid}/{ordinal:010}")
}

pub(crate) fn version(uid: &str, version: u64) -> String {
    format!("{VERSIONS}{uid}/{version:020}")
}

pub(crate) fn orphan(worker: &str, attempt: &str) -> String {
    format!("{ORPHANS}{worker}/{attempt}")
}

/// The worker and the attempt in an orphan's key.
pub(crate) fn worker_and_attempt(key: &str) -> Option<(&str, &str)> {
    key.strip_prefix(ORPHANS)?.split_once('/')
}

/// The uid in a replica's or a version's key, and the number after it.
pub(crate) fn numbered<'a>(prefix: &str, key: &'a str) -> Option<(&'a str, u64)> {
    let (uid, number) = key.strip_prefix(prefix)?.split_once('/')?;
    Some((uid, number.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_sort_as_their_numbers_and_are_read_back() {
        assert!(replica("u", 9) < replica("u", 10));
        assert!(version("u", 9) < version("u", 10));
        assert_eq!(numbered(REPLICAS, &replica("abc", 7)), Some(("abc", 7)));
        assert_eq!(numbered(VERSIONS, &replica("abc", 7)), None);
        let key = orphan("w1", "abc.0.3");
        assert_eq!(worker_and_attempt(&key), Some(("w1", "abc.0.3")));
    }
}
