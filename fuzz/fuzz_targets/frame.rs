//! The frame splitter: any bytes, in any pieces.
//!
//! Checked: no panic; a frame is found in a prefix only if it is found, the same, in the whole; what
//! is taken off the input is the frame and nothing else.
#![no_main]

use leveret_protocol::constants::FRAME_OVERHEAD;
use leveret_protocol::frame::{Frame, split_frame};
use libfuzzer_sys::fuzz_target;

const PAYLOAD_MAX: usize = 4088; // bytes
const FRAME_MAX: u32 = 4096; // bytes

fuzz_target!(|bytes: &[u8]| {
    let mut rest = bytes;
    while let Ok(Some(frame)) = split_frame(&mut rest, PAYLOAD_MAX, FRAME_MAX) {
        let taken = FRAME_OVERHEAD + frame.payload.len();
        let start = bytes.len() - rest.len() - taken;
        check_prefixes(&bytes[start..], taken, frame);
    }
});

/// A frame of `size` bytes in front of `input` appears with its last byte, not before.
fn check_prefixes(input: &[u8], size: usize, frame: Frame<'_>) {
    for len in [0, 1, size / 2, size - 1] {
        let mut prefix = &input[..len];
        match split_frame(&mut prefix, PAYLOAD_MAX, FRAME_MAX) {
            Ok(found) => assert!(found.is_none(), "a frame of {size} bytes in {len}"),
            Err(error) => panic!("a good frame is refused by its first {len} bytes: {error}"),
        }
        assert_eq!(prefix.len(), len, "an incomplete frame stays where it is");
    }
    let mut whole = &input[..size];
    let again = split_frame(&mut whole, PAYLOAD_MAX, FRAME_MAX);
    assert_eq!(again.expect("it was good before"), Some(frame));
    assert!(whole.is_empty(), "a frame is taken whole");
}
