//! Ids that are drawn at random. The domain is given them.

const LETTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// A service's uid: 12 characters of lower-case base32, 60 random bits.
pub(crate) fn uid() -> String {
    let mut bytes = [0_u8; 12];
    if getrandom::fill(&mut bytes).is_err() {
        // Two services made in one instant by one process would still differ in nothing else.
        tracing::error!("the system has no randomness");
    }
    let letters = bytes.iter().map(|byte| LETTERS[usize::from(byte % 32)]);
    letters.map(char::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uids_are_twelve_letters_and_differ() {
        let (a, b) = (uid(), uid());
        assert_eq!(a.len(), 12);
        assert_ne!(a, b);
        assert!(a.bytes().all(|byte| LETTERS.contains(&byte)));
    }
}
