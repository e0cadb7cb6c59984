//! Messages written straight to their bytes, for answers so large that a message of many small parts would
//! cost more than all else. It decides nothing; what is written here, prost would write too.

use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};
use tonic::Response;

use crate::watch::handed_over;

/// Appends bytes, such as an encoded message, as the field `tag`.
pub fn put_bytes(tag: u32, bytes: &[u8], to: &mut Vec<u8>) {
    encode_key(tag, WireType::LengthDelimited, to);
    encode_varint(bytes.len() as u64, to);
    to.extend_from_slice(bytes);
}

/// Appends a text; an empty one is not written.
pub fn put_text(tag: u32, text: &str, to: &mut Vec<u8>) {
    if !text.is_empty() {
        put_bytes(tag, text.as_bytes(), to);
    }
}

/// Appends a number or an enum; 0 is not written.
pub fn put_number(tag: u32, number: impl Into<i64>, to: &mut Vec<u8>) {
    let number: i64 = number.into();
    if number != 0 {
        encode_key(tag, WireType::Varint, to);
        // A negative number is written as if it were a large one.
        encode_varint(number.cast_unsigned(), to);
    }
}

/// Appends a truth; false is not written.
pub fn put_flag(tag: u32, flag: bool, to: &mut Vec<u8>) {
    put_number(tag, flag, to);
}

/// Appends what `write` writes as one message in the field `tag`, empty or not.
pub fn put_message(tag: u32, to: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    encode_key(tag, WireType::LengthDelimited, to);
    let start = to.len();
    write(to);
    // The length stands before the message and is known after it: most take one byte or two.
    let mut length = [0; 10];
    let mut left = &mut length[..];
    encode_varint((to.len() - start) as u64, &mut left);
    let unused = left.len();
    let used = length.len() - unused;
    to.splice(start..start, length[..used].iter().copied());
}

/// Appends what `write` writes, which takes `length` bytes, as one message in the field `tag`: where the length
/// is known, nothing has to be moved for it.
pub fn put_message_of(tag: u32, length: usize, to: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    encode_key(tag, WireType::LengthDelimited, to);
    encode_varint(length as u64, to);
    let start = to.len();
    write(to);
    debug_assert_eq!(to.len() - start, length, "the length of field {tag}");
}

/// Appends a message as the field `tag`, empty or not.
pub fn put_whole(tag: u32, message: &impl Message, to: &mut Vec<u8>) {
    prost::encoding::message::encode(tag, message, to);
}

/// What [`put_text`] appends, in bytes.
pub fn length_of_text(tag: u32, text: &str) -> usize {
    match text.len() {
        0 => 0,
        length => key_len(tag) + encoded_len_varint(length as u64) + length,
    }
}

/// An answer whose message is encoded already. Behind a server of ours the connection takes the bytes as
/// they are; without one, the message is an empty one.
pub fn answer<R: Default>(message: Vec<u8>) -> Response<R> {
    let mut response = Response::new(R::default());
    response.extensions_mut().insert(handed_over(message));
    response
}

#[cfg(test)]
mod tests {
    use muster_proto::types::v1::{Gpu, Int32Range, MachineCapacity};
    use prost::Message as _;

    use super::*;

    #[test]
    fn bytes_are_those_of_the_message() {
        let gpu = Gpu {
            uuid: "GPU-1".to_owned(),
            memory_mib: 81_920,
            simulated: true,
            product_name: "x".repeat(300),
            ..Gpu::default()
        };
        let machine = MachineCapacity {
            gpus: vec![gpu.clone(), Gpu::default()],
            cpu_milli: -7,
            ..MachineCapacity::default()
        };
        let mut written = Vec::new();
        put_message(1, &mut written, |to| {
            put_text(1, &gpu.uuid, to);
            put_text(2, "", to);
            put_number(4, gpu.memory_mib, to);
            put_text(5, &gpu.product_name, to);
            put_flag(7, gpu.simulated, to);
        });
        put_message(1, &mut written, |_| {});
        put_number(2, machine.cpu_milli, &mut written);
        put_number(3, 0, &mut written);
        assert_eq!(written, machine.encode_to_vec());
        let range = Int32Range {
            min: Some(1),
            max: None,
        };
        let mut outer = Vec::new();
        put_bytes(9, &range.encode_to_vec(), &mut outer);
        assert_eq!(outer, [0x4a, 2, 8, 1]);
        let mut whole = Vec::new();
        put_whole(9, &range, &mut whole);
        assert_eq!(whole, outer);
    }

    #[test]
    fn a_length_that_is_known_is_that_of_what_is_written() {
        for text in ["", "GPU-1", &"x".repeat(127), &"x".repeat(128)] {
            let (mut known, mut found) = (Vec::new(), Vec::new());
            for tag in [1, 16] {
                let length = length_of_text(tag, text);
                put_message_of(tag, length, &mut known, |to| put_text(tag, text, to));
                put_message(tag, &mut found, |to| put_text(tag, text, to));
            }
            assert_eq!(known, found, "{} bytes", text.len());
        }
    }
}
