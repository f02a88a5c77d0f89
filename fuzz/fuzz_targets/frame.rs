//! Any bytes are a frame or an error, and any frame a message or an error, in either direction.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pyisolate_abi::frame::Frame;
use pyisolate_abi::message::{ToGuest, ToHost};

fuzz_target!(|bytes: &[u8]| {
    let Ok(frame) = Frame::decode(bytes) else { return };
    let mut again = Vec::new();
    frame.encode(&mut again);
    assert_eq!(again, bytes);
    if let Ok(message) = ToHost::from_frame(&frame) {
        assert_eq!(ToHost::from_frame(&message.to_frame(frame.store)), Ok(message));
    }
    if let Ok(message) = ToGuest::from_frame(&frame) {
        assert_eq!(ToGuest::from_frame(&message.to_frame(frame.store)), Ok(message));
    }
});
