use super::*;
use crate::domain::allocation::Life;
use crate::domain::fixture::{allocate, ask, book, item, join, machine};
use crate::domain::gpus::Gpus;

fn allocation(id: &str, gpus: &[usize], cpu_milli: u32, replaces: Option<&str>) -> Arc<Allocation> {
    let mut book = book();
    join(&mut book, "w", &[("H100", 4), ("A100", 2)]);
    let made = allocate(&mut book, &item(id, ask("H100", 0))).unwrap();
    Arc::new(Allocation {
        id: id.into(),
        gpus: gpus
            .iter()
            .map(|place| format!("w-H100-{place}").into())
            .collect(),
        amounts: Amounts {
            cpu_milli,
            ..Amounts::default()
        },
        replaces: replaces.map(Into::into),
        host_ports: vec![8000 + u16::try_from(cpu_milli % 100).unwrap()],
        life: Life::Held,
        ..Allocation::clone(&made)
    })
}

fn here() -> Machine {
    machine("w", &[("H100", 4), ("A100", 2)])
}

#[test]
fn what_is_given_is_not_free() {
    let given = [
        allocation("a", &[0, 2], 1001, None),
        allocation("b", &[3], 2002, None),
    ];
    let room = free(&here(), 0, &given, None);
    let counts: Vec<_> = room.capacity.gpus.iter().map(|group| group.count).collect();
    assert_eq!(counts, [1, 2]);
    assert_eq!(room.free_gpus, [vec![1], vec![4, 5]]);
    assert_eq!(room.capacity.cpu_milli, Some(64_000 - 3003));
    assert_eq!(room.busy_ports, [8001, 8002]);
    let usage = usage(&here(), 0, &given);
    assert_eq!(
        (usage.allocations, usage.gpus, usage.amounts.cpu_milli),
        (2, 3, 3003)
    );
}

#[test]
fn a_room_taken_over_counts_once_until_the_old_one_has_ended() {
    let old = allocation("a", &[0, 1], 4000, None);
    let new = allocation("b", &[1], 3000, Some("a"));
    let both = [Arc::clone(&old), Arc::clone(&new)];
    let together = usage(&here(), 0, &both);
    assert_eq!(
        (
            together.allocations,
            together.gpus,
            together.amounts.cpu_milli
        ),
        (2, 2, 4000)
    );
    // The new one goes first: the old one still holds what it holds.
    assert_eq!(usage(&here(), 0, &[old]).gpus, 2);
    let alone = usage(&here(), 0, &[new]);
    assert_eq!((alone.gpus, alone.amounts.cpu_milli), (1, 3000));
}

#[test]
fn what_is_to_be_replaced_is_free_for_the_one_that_replaces_it() {
    let given = [
        allocation("a", &[0, 1, 2], 60_000, None),
        allocation("b", &[3], 1000, None),
    ];
    let room = free(&here(), 0, &given, Some(&"a".into()));
    assert_eq!(room.free_gpus[0], [0, 1, 2]);
    assert_eq!(room.capacity.cpu_milli, Some(63_000));
}

#[test]
fn what_force_disabling_took_counts_no_more() {
    let given = [allocation("a", &[0], 1000, None)];
    assert_eq!(given[0].generation, 1);
    assert_eq!(usage(&here(), 1, &given), Usage::default());
    assert_eq!(free(&here(), 1, &given, None).gpus, 6);
}

#[test]
fn a_machine_that_shrank_has_nothing_free_below_zero() {
    let given = [allocation("a", &[0], 64_000, None)];
    let shrunk = Machine {
        cpu_milli: 1000,
        gpus: Gpus::default(),
        ..here()
    };
    let room = free(&shrunk, 0, &given, None);
    assert_eq!((room.gpus, room.capacity.cpu_milli), (0, Some(0)));
}
