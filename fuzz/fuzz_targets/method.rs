//! The decoders of methods and properties: any payload.
//!
//! Checked: no panic; what can be decoded is encoded and decoded again to the same.
#![no_main]

use leveret_protocol::constants::FRAME_OVERHEAD;
use leveret_protocol::{BasicProperties, Method, PropertiesWriter};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(method) = Method::decode(bytes) {
        let mut frame = Vec::new();
        method.encode(1, &mut frame);
        let payload = &frame[FRAME_OVERHEAD - 1..frame.len() - 1];
        let again = Method::decode(payload).expect("what was encoded can be decoded");
        assert_eq!(format!("{method:?}"), format!("{again:?}"));
    }
    if let Ok(properties) = BasicProperties::parse(bytes) {
        let written = PropertiesWriter::from(properties).to_bytes();
        let again = BasicProperties::parse(&written).expect("what was written can be read");
        assert_eq!(properties.priority(), again.priority());
        assert_eq!(properties.expiration(), again.expiration());
        assert_eq!(properties.correlation_id(), again.correlation_id());
    }
});
