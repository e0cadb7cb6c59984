//! How a request is said in etcd's terms, and what its answer means. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use etcd_client::{
    Compare, CompareOp, GetOptions, PutOptions, Txn, TxnOp, TxnOpResponse, TxnResponse,
};

use super::super::{Answer, Fault, Judged, Request};
use super::MARK_KEY;
use crate::record::Revision;
use crate::transaction::Condition;

/// The transaction, and whether it puts anything of the caller's.
pub(super) fn render(prefix: &str, request: &Request) -> (Txn, bool) {
    let full = |key: &str| format!("{prefix}{key}");
    let wanted = compares(&request.conditions);
    let look = wanted.keys().map(|key| {
        let options = GetOptions::new().with_keys_only();
        TxnOp::get(full(key), Some(options))
    });
    let look: Vec<_> = look.collect();
    let compares = wanted.iter().flat_map(|(key, conditions)| {
        conditions
            .iter()
            .map(move |condition| compare(full(key), *condition))
    });
    let compares: Vec<_> = compares.collect();
    let puts = request.writes.iter().any(|(_, value)| value.is_some());
    let lease = request
        .lease
        .map(|lease| PutOptions::new().with_lease(lease.0));
    let mut writes: Vec<_> = request
        .writes
        .iter()
        .map(|(key, value)| match value {
            Some(value) => TxnOp::put(full(key), value.to_vec(), lease.clone()),
            None => TxnOp::delete(full(key), None),
        })
        .collect();
    if !puts {
        // It may change nothing, and no watch would ever tell that it has come so far.
        writes.push(TxnOp::put(full(MARK_KEY), "", None));
    }
    let transaction = Txn::new().when(compares).and_then(writes).or_else(look);
    (transaction, puts)
}

/// The conditions of each key, in a number that etcd takes: of those that contradict each other, two are enough.
fn compares(conditions: &[(Arc<str>, Condition)]) -> BTreeMap<&str, Vec<Condition>> {
    let mut of_key: BTreeMap<&str, Vec<Condition>> = BTreeMap::new();
    for (key, condition) in conditions {
        let found = of_key.entry(key).or_default();
        if !found.contains(condition) {
            found.push(*condition);
        }
    }
    for conditions in of_key.values_mut() {
        let says_more = |one: &Condition| matches!(one, Condition::ModifiedAt(_));
        if conditions.iter().any(says_more) {
            conditions.retain(|one| *one != Condition::Exists);
        }
        conditions.truncate(2);
    }
    of_key
}

fn compare(key: String, condition: Condition) -> Compare {
    match condition {
        Condition::Absent => Compare::create_revision(key, CompareOp::Equal, 0),
        Condition::Exists => Compare::create_revision(key, CompareOp::Greater, 0),
        Condition::ModifiedAt(revision) => {
            Compare::mod_revision(key, CompareOp::Equal, modified_at(revision))
        }
    }
}

/// etcd takes 0 for an absent key, which no condition here means; what is no revision is none.
fn modified_at(revision: Revision) -> i64 {
    let revision = i64::try_from(revision.0).unwrap_or(-1);
    if revision == 0 { -1 } else { revision }
}

/// What the answer says.
pub(super) fn parse(
    prefix: &str,
    request: &Request,
    puts: bool,
    response: &TxnResponse,
) -> Result<Answer, Fault> {
    let revision = response.header().map(|header| header.revision());
    let revision = revision.and_then(|revision| u64::try_from(revision).ok());
    let revision = revision.ok_or_else(|| odd("without a revision"))?;
    let outcome = if response.succeeded() {
        let deleted =
            |one: &TxnOpResponse| matches!(one, TxnOpResponse::Delete(one) if one.deleted() > 0);
        let changed = puts || response.op_responses().iter().any(deleted);
        Judged::Done { changed }
    } else {
        conflict(prefix, request, response)?
    };
    Ok(Answer { revision, outcome })
}

/// The first condition, in the caller's order, that does not hold of what was found.
fn conflict(prefix: &str, request: &Request, response: &TxnResponse) -> Result<Judged, Fault> {
    let mut found: BTreeMap<String, u64> = BTreeMap::new();
    for one in response.op_responses() {
        let TxnOpResponse::Get(got) = one else {
            continue;
        };
        for pair in got.kvs() {
            let key = pair.key_str().ok().and_then(|key| key.strip_prefix(prefix));
            let modified = u64::try_from(pair.mod_revision()).unwrap_or_default();
            found.extend(key.map(|key| (key.to_owned(), modified)));
        }
    }
    let failed = request.conditions.iter().find_map(|(key, condition)| {
        let actual = found.get(&**key).copied();
        (!condition.holds(actual.map(Revision))).then(|| (Arc::clone(key), actual))
    });
    let (key, actual) = failed.ok_or_else(|| odd("to conditions that hold"))?;
    Ok(Judged::Conflict { key, actual })
}

fn odd(words: &str) -> Fault {
    Fault::Unavailable(format!("etcd gave an answer {words}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: fn(u64) -> Condition = |revision| Condition::ModifiedAt(Revision(revision));

    #[track_caller]
    fn check(conditions: &[Condition], expected: &[Condition]) {
        let named: Vec<_> = conditions.iter().map(|one| ("k".into(), *one)).collect();
        assert_eq!(compares(&named).get("k").map(Vec::as_slice), Some(expected));
    }

    #[test]
    fn repeated_conditions_are_said_once_and_contradictions_remain() {
        check(&[AT(3), AT(3)], &[AT(3)]);
        check(&[Condition::Exists, AT(3)], &[AT(3)]);
        check(&[Condition::Exists], &[Condition::Exists]);
        check(&[Condition::Absent, AT(3)], &[Condition::Absent, AT(3)]);
        check(&[AT(1), AT(2), AT(3)], &[AT(1), AT(2)]);
        check(
            &[Condition::Exists, Condition::Absent],
            &[Condition::Exists, Condition::Absent],
        );
    }

    #[test]
    fn what_is_no_revision_is_never_met() {
        for (revision, said) in [(0, -1), (7, 7), (u64::MAX, -1)] {
            assert_eq!(modified_at(Revision(revision)), said);
        }
    }
}
