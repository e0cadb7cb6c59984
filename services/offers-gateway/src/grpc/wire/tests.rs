use std::sync::Arc;
use std::time::{Duration, SystemTime};

use muster_model::quantity::MicroUsd;
use proptest::prelude::*;
use rustc_hash::FxHashMap;

use super::*;
use crate::domain::market::Mark;
use crate::domain::offer::Availability;
use crate::domain::skypilot;

fn decoded(shelf: &Shelf, number: RowNumber, raw: RawFields) -> pb::Offer {
    let tables = Tables::new(&shelf.snapshot);
    let mut bytes = Vec::new();
    Writer::new(shelf, &tables, raw).write(number, &mut bytes);
    pb::Offer::decode(bytes.as_slice()).unwrap()
}

proptest! {
    /// What is written is what would have been rendered, whatever the offer is.
    #[test]
    fn written_bytes_are_the_rendered_message(
        rows in proptest::collection::vec(("[a-z/ é]{1,6}", "(H100|A10|Odd)?", "(1|2|0.5)", "[0-9]{0,2}", "[0-9.]{0,3}", "[0-9]{0,3}", "[a-z, ]{0,9}", "[a-z]{0,2}"), 1..8),
        seconds in 0u64..4_000_000_000,
        mark in proptest::option::of((proptest::option::of(Just(Availability::NoCapacity)), proptest::option::of(0i64..9))),
    ) {
        let mut text = "InstanceType,AcceleratorName,AcceleratorCount,vCPUs,MemoryGiB,Price,SpotPrice,Region,AvailabilityZone,Arch\n".to_owned();
        for (instance_type, gpu, count, cpus, memory, price, region, zone) in rows {
            text += &format!("{instance_type},{gpu},{count},{cpus},{memory},{price},1,\"{region}\",{zone},arm64\n");
        }
        let Ok(snapshot) = skypilot::read("cloud /1", "f", text.as_bytes()) else { return Ok(()) };
        let marks: FxHashMap<_, _> = mark.into_iter().map(|(availability, price)| (0, Mark { availability, price: price.map(MicroUsd) })).collect();
        let observed = SystemTime::UNIX_EPOCH + Duration::new(seconds, 5);
        let shelf = Shelf::new(Arc::new(snapshot), observed, Arc::new(marks));
        for number in (0u32..).take(shelf.snapshot.len()) {
            for raw in [RawFields::Omit, RawFields::Include] {
                prop_assert_eq!(decoded(&shelf, number, raw), convert::render_offer(&shelf, number, raw));
            }
        }
    }
}
