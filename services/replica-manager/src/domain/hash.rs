//! The one source of jitter: a hash that is the same on every machine and in every version.

/// A number in [0, 1) that depends on nothing but the text.
pub(crate) fn fraction(text: &str) -> f64 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in text.bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    // Ids differ in their last digits, which only reach the low bits: mix them upwards.
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    let top = u32::try_from(hash >> 32).unwrap_or(u32::MAX);
    f64::from(top) / 4_294_967_296.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbouring_ids_spread_over_the_range() {
        let all: Vec<f64> = (0..1000).map(|n| fraction(&format!("abc.0.{n}"))).collect();
        assert!(all.iter().all(|f| (0.0..1.0).contains(f)));
        let mean = all.iter().sum::<f64>() / 1000.0;
        assert!((0.45..0.55).contains(&mean), "{mean}");
        assert!(all.iter().filter(|f| **f < 0.1).count() > 60);
        assert!((fraction("abc.0.1") - fraction("abc.0.1")).abs() < f64::EPSILON);
    }
}
