//! The price lists that come with the gateway, for when nothing is configured: well-known machines
//! with accelerators of nine clouds, on demand, in one region each, as their providers publish them.
//! They know nothing of capacity, and grow old: each says of which day it is.

/// A price list that comes with the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PriceList {
    /// The provider, and the name of its backend.
    pub name: &'static str,
    /// The day of its prices.
    pub date: &'static str,
    /// The list, in SkyPilot's CSV layout.
    pub text: &'static str,
}

/// The day of all of them: they are gone through together.
const DATE: &str = "2025-07-01";

macro_rules! list {
    ($name:literal) => {
        PriceList {
            name: $name,
            date: DATE,
            text: include_str!(concat!("../catalog/", $name, ".csv")),
        }
    };
}

/// All of them, in order of name.
pub static PRICE_LISTS: [PriceList; 9] = [
    list!("aws"),
    list!("azure"),
    list!("coreweave"),
    list!("digitalocean"),
    list!("gcp"),
    list!("lambda"),
    list!("nebius"),
    list!("oci"),
    list!("runpod"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::skypilot;

    #[test]
    fn every_row_is_an_offer_of_known_accelerators() {
        let mut offers = 0;
        for list in &PRICE_LISTS {
            let snapshot = skypilot::read(list.name, "list", list.text.as_bytes()).unwrap();
            let intake = snapshot.intake();
            assert_eq!(
                (intake.skipped_rows(), intake.repeated, intake.mended),
                (0, 0, 0),
                "{}: {intake:?}",
                list.name
            );
            assert!(
                intake.unknown_gpus.is_empty(),
                "{}: {:?}",
                list.name,
                intake.unknown_gpus
            );
            let memory = |row| snapshot.machine(row).gpu_memory_mib();
            assert!(
                snapshot.rows().iter().all(|row| memory(row).is_some()),
                "{}",
                list.name
            );
            offers += snapshot.len();
        }
        assert!((100..200).contains(&offers), "{offers}");
    }
}
