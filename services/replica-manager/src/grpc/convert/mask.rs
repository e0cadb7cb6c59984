//! Which fields of a spec an update takes: all, those named, or those that are set.

use std::sync::LazyLock;

use muster_proto::replicas::v1::ServiceSpec;
use muster_runtime::status::Violations;
use prost::Message as _;
use prost_reflect::{
    DescriptorPool, DynamicMessage, MessageDescriptor, ReflectMessage as _, Value,
};

const SPEC: &str = "muster.replicas.v1.ServiceSpec";

/// How a spec is built: a constant that takes milliseconds to read, and is needed only by updates.
static DESCRIPTOR: LazyLock<Option<MessageDescriptor>> = LazyLock::new(|| {
    let pool = DescriptorPool::decode(muster_proto::DESCRIPTORS).ok()?;
    pool.get_message_by_name(SPEC)
});

/// The spec that comes of taking the fields that `paths` name (`*` is all, nothing those that are set)
/// of `given` into `current`.
///
/// # Errors
/// Paths that name no field.
pub(crate) fn merge(
    current: &ServiceSpec,
    given: ServiceSpec,
    paths: &[String],
) -> Result<ServiceSpec, Violations> {
    if paths.iter().any(|path| path == "*") {
        return Ok(given);
    }
    let mut faults = Violations::new();
    let merged = match (reflect(current), reflect(&given)) {
        (Some(mut into), Some(from)) => {
            if paths.is_empty() {
                take_set(&mut into, &from);
            }
            for path in paths {
                take_path(&mut into, &from, path, &mut faults);
            }
            ServiceSpec::decode(into.encode_to_vec().as_slice()).ok()
        }
        _ => None,
    };
    match merged {
        Some(merged) if faults.is_empty() => Ok(merged),
        Some(_) => Err(faults),
        None => {
            faults.add("update_mask", "cannot be applied");
            Err(faults)
        }
    }
}

fn reflect(spec: &ServiceSpec) -> Option<DynamicMessage> {
    let descriptor = DESCRIPTOR.clone()?;
    DynamicMessage::decode(descriptor, spec.encode_to_vec().as_slice()).ok()
}

/// Takes the fields of the whole that are set.
fn take_set(into: &mut DynamicMessage, from: &DynamicMessage) {
    for (field, value) in from.fields() {
        into.set_field(&field, value.clone());
    }
}

/// Takes one field, however deep; one that is not set in `from` gets its default.
fn take_path(
    into: &mut DynamicMessage,
    from: &DynamicMessage,
    path: &str,
    faults: &mut Violations,
) {
    let (head, rest) = match path.split_once('.') {
        Some((head, rest)) => (head, Some(rest)),
        None => (path, None),
    };
    let Some(field) = from.descriptor().get_field_by_name(head) else {
        faults.add("update_mask", format!("names no field: {path}"));
        return;
    };
    let Some(rest) = rest else {
        if from.has_field(&field) {
            into.set_field(&field, from.get_field(&field).into_owned());
        } else {
            into.clear_field(&field);
        }
        return;
    };
    let before = into.get_field(&field).into_owned();
    let inner = from.get_field(&field).into_owned();
    match (before.clone(), inner) {
        (Value::Message(mut inside), Value::Message(from)) => {
            take_path(&mut inside, &from, rest, faults);
            let after = Value::Message(inside);
            // Clearing a part of what is not there must not bring the whole about.
            if after != before {
                into.set_field(&field, after);
            }
        }
        _ => faults.add("update_mask", format!("names no field: {path}")),
    }
}

/// Whether an update with these paths takes this field of the spec.
pub(crate) fn covers(paths: &[String], given: &ServiceSpec, field: &str) -> bool {
    if paths.is_empty() {
        let given = reflect(given);
        return given.is_some_and(|given| given.has_field_by_name(field));
    }
    let heads = paths.iter().filter_map(|path| path.split('.').next());
    heads.into_iter().any(|head| head == "*" || head == field)
}

#[cfg(test)]
mod tests {
    use muster_proto::replicas::v1::{ReplicaCount, RetryPolicy, RunSpec, StopPolicy};

    use super::*;

    fn current() -> ServiceSpec {
        ServiceSpec {
            name: "chat".to_owned(),
            replicas: Some(ReplicaCount {
                min: Some(2),
                max: Some(4),
            }),
            run: Some(RunSpec {
                command: vec!["old".to_owned()],
                working_dir: "/srv".to_owned(),
                ..RunSpec::default()
            }),
            retry: Some(RetryPolicy::default()),
            ..ServiceSpec::default()
        }
    }

    fn given() -> ServiceSpec {
        ServiceSpec {
            name: "chat".to_owned(),
            run: Some(RunSpec {
                command: vec!["new".to_owned()],
                ..RunSpec::default()
            }),
            stop: Some(StopPolicy::default()),
            ..ServiceSpec::default()
        }
    }

    fn paths(paths: &[&str]) -> Vec<String> {
        paths.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_star_takes_all_so_that_what_is_left_out_is_removed() {
        assert_eq!(merge(&current(), given(), &paths(&["*"])).unwrap(), given());
    }

    #[test]
    fn no_path_takes_what_is_set() {
        let merged = merge(&current(), given(), &[]).unwrap();
        assert_eq!(merged.run, given().run);
        assert_eq!(merged.replicas, current().replicas);
        assert_eq!(merged.retry, current().retry);
        assert_eq!(merged.stop, given().stop);
    }

    #[test]
    fn a_path_takes_one_field_however_deep() {
        let merged = merge(&current(), given(), &paths(&["run.command", "retry"])).unwrap();
        let run = merged.run.unwrap();
        assert_eq!(run.command, ["new"]);
        assert_eq!(run.working_dir, "/srv");
        assert_eq!(merged.retry, None);
        assert_eq!(merged.stop, None);
    }

    #[test]
    fn a_path_into_what_is_not_set_sets_it_only_with_a_value() {
        let mut bare = current();
        bare.retry = None;
        let mut with = given();
        for retry in [None, Some(RetryPolicy::default())] {
            with.retry = retry;
            let merged = merge(&bare, with.clone(), &paths(&["retry.max_attempts"])).unwrap();
            assert_eq!(merged.retry, None);
        }
        let retry = RetryPolicy {
            max_attempts: 3,
            ..RetryPolicy::default()
        };
        with.retry = Some(retry);
        let merged = merge(&bare, with.clone(), &paths(&["retry.max_attempts"])).unwrap();
        assert_eq!(merged.retry, with.retry);
        with.retry = None;
        let merged = merge(&merged, with, &paths(&["retry.max_attempts"])).unwrap();
        assert_eq!(merged.retry, Some(RetryPolicy::default()));
    }

    #[test]
    fn a_path_covers_what_is_in_it() {
        let covered =
            |given: &ServiceSpec, named: &[&str]| covers(&paths(named), given, "replicas");
        assert!(covered(&current(), &[]) && !covered(&given(), &[]));
        for named in ["*", "replicas", "replicas.min"] {
            assert!(covered(&given(), &["labels", named]), "{named}");
        }
        assert!(!covered(&current(), &["labels", "retry"]));
    }

    #[test]
    fn a_path_to_nowhere_is_refused() {
        for wrong in ["runs", "run.comand", "name.x"] {
            let faults = merge(&current(), given(), &paths(&[wrong])).unwrap_err();
            assert!(!faults.is_empty(), "{wrong}");
        }
    }
}
