//! Hashes that are the same on every machine and in every version: for seeds, and to tell a token
//! of ours from a mistyped or cut one. They are no protection against a forger: what must not be
//! forged carries a MAC.

/// FNV-1a, 64 bits.
pub(crate) fn hash(data: &[u8]) -> u64 {
    data.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// Four bytes that change with any byte of `data`.
pub(crate) fn checksum(data: &[u8]) -> [u8; 4] {
    let [a, b, c, d, e, f, g, h] = hash(data).to_be_bytes();
    [a ^ e, b ^ f, c ^ g, d ^ h]
}
