//! Tells a container's two outputs apart: the engine sends them in one stream, in frames of a
//! header of eight bytes (the output, three zeros, the length) and the text.

/// Which output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Output {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

/// Text of a frame that has not come whole is given out at this length.
const LONGEST: usize = 64 * 1024;

/// Puts frames together from bytes as they come.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    bytes: Vec<u8>,
    /// The frame under way, and how much of it is still to come.
    open: Option<(Output, usize)>,
}

impl Frames {
    /// Adds what has come.
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next text; nothing until more has come. A frame may be given out in parts.
    pub(crate) fn take(&mut self) -> Option<(Output, Vec<u8>)> {
        if self.open.is_none() {
            let (header, _) = self.bytes.split_first_chunk::<8>()?;
            let output = if header[0] == 2 {
                Output::Err
            } else {
                Output::Out
            };
            let length = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
            self.open = Some((output, usize::try_from(length).unwrap_or(usize::MAX)));
            self.bytes.drain(..8);
        }
        let (output, left) = self.open?;
        let here = left.min(self.bytes.len());
        if here < left && here < LONGEST {
            return None;
        }
        let text = self.bytes.drain(..here).collect();
        self.open = Some((output, left - here)).filter(|(_, left)| *left > 0);
        Some((output, text))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(output: u8, text: &[u8]) -> Vec<u8> {
        let length = u32::try_from(text.len()).unwrap().to_be_bytes();
        [&[output, 0, 0, 0][..], &length, text].concat()
    }

    #[test]
    fn a_huge_frame_is_given_out_in_parts() {
        let mut frames = Frames::default();
        frames.add(&frame(1, &vec![b'x'; 3 * LONGEST])[..LONGEST + 8]);
        assert_eq!(frames.take().unwrap().1.len(), LONGEST);
        assert_eq!(frames.take(), None);
    }

    proptest! {
        #[test]
        fn frames_come_out_as_they_went_in(
            sent in proptest::collection::vec((1_u8..3, proptest::collection::vec(any::<u8>(), 0..20)), 0..10),
            cut in 1_usize..30,
        ) {
            let bytes: Vec<u8> = sent.iter().flat_map(|(output, text)| frame(*output, text)).collect();
            let mut frames = Frames::default();
            let mut found = Vec::new();
            for part in bytes.chunks(cut) {
                frames.add(part);
                while let Some((output, text)) = frames.take() {
                    found.push((if output == Output::Err { 2 } else { 1 }, text));
                }
            }
            prop_assert_eq!(found, sent);
        }

        #[test]
        fn rubbish_is_no_panic(parts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..20)) {
            let mut frames = Frames::default();
            for part in parts {
                frames.add(&part);
                while frames.take().is_some() {}
            }
        }
    }
}
