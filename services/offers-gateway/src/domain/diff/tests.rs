use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use muster_model::quantity::MicroUsd;
use proptest::prelude::*;

use super::*;
use crate::domain::market::Mark;
use crate::domain::offer::{Availability, Source};
use crate::domain::skypilot;

fn shelf(offers: &BTreeMap<(u8, u8), (u8, u8)>, marked: &[usize]) -> Shelf {
    let mut text = "InstanceType,vCPUs,Price,Region\n".to_owned();
    for ((region, instance_type), (cpus, price)) in offers {
        text += &format!("t{instance_type},{cpus},{},r{region}\n", price + 1);
    }
    let snapshot = if offers.is_empty() {
        Snapshot::empty("b", Source::Catalog)
    } else {
        skypilot::read("b", "f", text.as_bytes()).unwrap()
    };
    let mark = Mark {
        availability: Some(Availability::NoQuota),
        price: Some(MicroUsd(1)),
    };
    let marks = marked
        .iter()
        .filter(|row| **row < snapshot.len())
        .map(|row| (u32::try_from(*row).unwrap(), mark));
    let marks = marks.collect();
    Shelf::new(Arc::new(snapshot), SystemTime::UNIX_EPOCH, Arc::new(marks))
}

/// All that is shown of a shelf, by id.
fn shown(shelf: &Shelf) -> BTreeMap<String, String> {
    let rows = (0u32..).zip(shelf.snapshot.rows());
    rows.map(|(number, row)| one(shelf, number, row)).collect()
}

fn one(shelf: &Shelf, number: RowNumber, row: &Row) -> (String, String) {
    let told = format!(
        "{:?} {:?}",
        shelf.shown(number, row),
        shelf.snapshot.machine(row)
    );
    (shelf.snapshot.id_of(row).render(), told)
}

fn offers() -> impl Strategy<Value = BTreeMap<(u8, u8), (u8, u8)>> {
    proptest::collection::btree_map((0u8..3, 0u8..4), (0u8..3, 0u8..3), 0..10)
}

proptest! {
    /// Applying the changes to what was shown gives what is shown, and nothing is told in vain.
    #[test]
    fn changes_lead_from_before_to_after(old in offers(), new in offers(), marked in proptest::collection::vec(0usize..9, 0..3)) {
        let (before, after) = (shelf(&old, &[]), shelf(&new, &marked));
        let mut state = shown(&before);
        for change in diff(Some(&before), Some(&after)) {
            let was = change.before.map(|row| one(&before, row, before.snapshot.row(row)));
            let is = change.after.map(|row| one(&after, row, after.snapshot.row(row)));
            prop_assert_eq!(was == is, change.only_raw);
            match (was, is) {
                (was, Some((id, told))) => prop_assert_eq!(state.insert(id, told), was.map(|(_, told)| told)),
                (Some((id, _)), None) => prop_assert!(state.remove(&id).is_some()),
                (None, None) => prop_assert!(false),
            }
        }
        prop_assert_eq!(state, shown(&after));
        prop_assert_eq!(diff(Some(&after), Some(&after)), []);
    }
}

#[test]
fn a_change_of_the_providers_own_fields_alone_is_told_apart() {
    let shelf = |note: &str| {
        let text = format!("InstanceType,Price,Region,Note\na,1,eu,{note}\nb,1,eu,same\n");
        let snapshot = skypilot::read("b", "f", text.as_bytes()).unwrap();
        Shelf::new(Arc::new(snapshot), SystemTime::UNIX_EPOCH, Arc::default())
    };
    let changes = diff(Some(&shelf("old")), Some(&shelf("new")));
    assert_eq!(
        changes,
        [Change {
            before: Some(0),
            after: Some(0),
            only_raw: true
        }]
    );
}

#[test]
fn a_backend_comes_and_goes_whole() {
    let whole = shelf(&BTreeMap::from([((1, 1), (1, 1)), ((1, 2), (1, 1))]), &[]);
    assert_eq!(diff(None, Some(&whole)).len(), 2);
    assert_eq!(
        diff(Some(&whole), None)[1],
        Change {
            before: Some(1),
            after: None,
            only_raw: false
        }
    );
    assert_eq!(diff(None, None), []);
}
