//! Which ports of the machine a replica gets. The order in which ports are tried is hashed from the
//! attempt, so that agents beside each other seldom try the same one. It opens no port itself.

use std::ops::RangeInclusive;

/// The ports that replicas get: outside of those that the kernel gives to outgoing connections.
pub const DEFAULT_RANGE: RangeInclusive<u16> = 20_000..=29_999;

/// `count` different ports of `range` that `is_free`; fewer if there are no more. `seed` decides
/// where the search begins.
pub fn pick(
    range: &RangeInclusive<u16>,
    seed: u64,
    count: usize,
    mut is_free: impl FnMut(u16) -> bool,
) -> Vec<u16> {
    let size = u64::from(range.end().saturating_sub(*range.start())) + 1;
    let first = seed % size;
    (0..size)
        .map(|step| (first + step) % size)
        .filter_map(|offset| u16::try_from(u64::from(*range.start()) + offset).ok())
        .filter(|port| is_free(*port))
        .take(count)
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_full_range_gives_what_it_has() {
        assert_eq!(pick(&(7..=9), 1, 5, |port| port != 8), [9, 7]);
        assert!(pick(&(7..=9), 1, 5, |_| false).is_empty());
    }

    proptest! {
        #[test]
        fn ports_differ_and_are_free(start in 1_u16.., length in 0_u16..50, seed: u64, count in 0_usize..20, odd: bool) {
            let range = start..=start.saturating_add(length);
            let is_free = |port: u16| (port % 2 == 1) == odd;
            let mut ports = pick(&range, seed, count, is_free);
            let free = range.clone().filter(|port| is_free(*port)).count();
            prop_assert_eq!(ports.len(), count.min(free));
            prop_assert!(ports.iter().all(|port| range.contains(port) && is_free(*port)));
            ports.sort_unstable();
            ports.dedup();
            prop_assert_eq!(ports.len(), count.min(free));
        }
    }
}
