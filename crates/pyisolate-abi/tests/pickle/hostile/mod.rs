//! Pickles that no honest guest sends. Each ends in an error, soon and without much memory.

use pyisolate_abi::pickle::{Caps, DecodeError, Message, decode};

use crate::vectors::trusted;

const START: &[u8] = b"\x80\x05";

fn run<'p>(pickle: &'p [u8], caps: &Caps) -> Result<Message<'p>, DecodeError> {
    decode(pickle, &[], &trusted(), caps)
}

/// Decodes PROTO 5, the parts and STOP.
fn parts(parts: &[&[u8]]) -> Result<(), DecodeError> {
    let pickle = [START, &parts.concat(), b"."].concat();
    run(&pickle, &Caps::default()).map(drop)
}

fn text(text: &str) -> Vec<u8> {
    [&[0x8c, text.len() as u8], text.as_bytes()].concat()
}

fn global(module: &str, name: &str) -> Vec<u8> {
    [text(module), text(name), b"\x93".to_vec()].concat()
}

#[track_caller]
fn assert_error(result: Result<(), DecodeError>, expected: impl Fn(&DecodeError) -> bool) {
    match result {
        Err(error) => assert!(expected(&error), "{error:?}"),
        Ok(()) => panic!("was accepted"),
    }
}

/// `numpy.dtype("i4")` and its state.
fn int_dtype() -> Vec<u8> {
    [
        global("numpy", "dtype"),
        text("i4"),
        b"\x89\x88\x87R(K\x03\x8c\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb".to_vec(),
    ]
    .concat()
}

/// `assert_fails!(parts, pattern)`
macro_rules! assert_fails {
    ($result:expr, $pattern:pat) => {
        assert_error($result, |error| matches!(error, $pattern))
    };
}

// Below the macro, so that they see it.
mod arrays;
mod keys;
mod memory;
mod structure;
mod types;
