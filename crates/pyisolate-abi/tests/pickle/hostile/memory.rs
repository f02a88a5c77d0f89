//! Small pickles that would grow large, or take long.

use std::time::{Duration, Instant};

use pyisolate_abi::pickle::{Caps, DecodeError, Node};

use super::{START, assert_error, global, parts, run};

#[test]
fn the_memo_cannot_be_stretched() {
    assert_fails!(parts(&[b"h\x00"]), DecodeError::NoSuchMemo { index: 0, count: 0, .. });
    assert_fails!(parts(&[b"N\x94j\xff\xff\xff\xff"]), DecodeError::NoSuchMemo { count: 1, .. });
    let caps = Caps { memo: 10, ..Caps::default() };
    let pickle = [START, b"N", &[0x94; 11], b"."].concat();
    assert_fails!(run(&pickle, &caps).map(drop), DecodeError::Memo { cap: 10 });
}

#[test]
fn shared_values_stay_small() {
    // Forty lists of ten times the list before: 10**40 items written out.
    let mut pickle = START.to_vec();
    pickle.extend(b"]\x94");
    for level in 0..40 {
        pickle.extend(b"]\x94(");
        pickle.extend([b'h', level].repeat(10));
        pickle.push(b'e');
    }
    pickle.push(b'.');
    // The lists below are left over on the stack; drop them.
    let nested = [
        START,
        b"]\x94",
        &(0..40u8)
            .flat_map(|level| [&b"0]\x94("[..], &[b'h', level].repeat(10), b"e"].concat())
            .collect::<Vec<_>>(),
        b".",
    ]
    .concat();
    assert_fails!(run(&pickle, &Caps::default()).map(drop), DecodeError::LeftOver { .. });
    let message = run(&nested, &Caps::default()).unwrap();
    assert!(message.len() < 50);
    assert!(matches!(message.node(message.root()), Node::List(items) if items.len() == 10));
    let error = message.to_value(&Caps { nodes: 100_000, ..Caps::default() });
    assert!(error.is_err(), "written out as a tree it must hit a cap");
}

#[test]
fn a_shared_string_is_not_copied() {
    let long = "x".repeat(1 << 20);
    let mut pickle =
        [START, b"](X", &(long.len() as u32).to_le_bytes(), long.as_bytes(), b"\x94"].concat();
    pickle.extend(b"h\x00".repeat(100_000));
    pickle.extend(b"e.");
    let message = run(&pickle, &Caps::default()).unwrap();
    assert_eq!(message.len(), 2);
    assert!(message.to_value(&Caps::default()).is_err());
}

#[test]
fn shared_arguments_are_paid_for_each_time() {
    // A decimal's text, a path's parts and an array's bytes are copied by the receiver.
    let long = "1".repeat(200_000);
    let argument =
        [&b"X"[..], &(long.len() as u32).to_le_bytes(), long.as_bytes(), b"\x94\x85\x94"].concat();
    for (module, class) in [("decimal", "Decimal"), ("pathlib", "PurePosixPath")] {
        let mut pickle = [START, &argument, b"0](", &global(module, class), b"\x94h\x01R"].concat();
        pickle.extend(b"h\x02h\x01R".repeat(10_000));
        pickle.extend(b"e.");
        assert_fails!(run(&pickle, &Caps::default()).map(drop), DecodeError::DecodedBytes { .. });
    }
}

#[test]
fn floods_hit_a_cap() {
    let caps = Caps { nodes: 1000, ..Caps::default() };
    let flood = |opcode: &[u8]| {
        let pickle = [START, &opcode.repeat(5000), b"."].concat();
        run(&pickle, &caps).map(drop)
    };
    for opcode in [&b"("[..], b"N", b"]", b"K\x01", b")", b"N\x85", b"\x8c\x00"] {
        assert_fails!(flood(opcode), DecodeError::Nodes { cap: 1000 });
    }
    let caps = Caps { decoded_bytes: 10_000, ..Caps::default() };
    let pickle =
        [START, &global("collections", "deque"), b"\x940](", &b"h\x00)R".repeat(100), b"e."]
            .concat();
    assert_fails!(run(&pickle, &caps).map(drop), DecodeError::DecodedBytes { .. });
}

#[test]
fn integers_are_capped() {
    let long = |bytes: usize| {
        let pickle =
            [START, b"\x8b", &(bytes as u32).to_le_bytes(), &vec![0x7f; bytes], b"."].concat();
        run(&pickle, &Caps::default()).map(drop)
    };
    assert!(long(1 << 17).is_ok());
    assert_fails!(long((1 << 17) + 1), DecodeError::IntBits { .. });
}

#[test]
fn interleaved_growth_is_linear() {
    // Two lists that grow in turns, one item at a time.
    let started = Instant::now();
    let turns = 300_000;
    let mut pickle = [START, b"]\x94]\x94\x86\x940"].concat();
    pickle.extend(b"h\x00K\x01a0h\x01K\x01a0".repeat(turns));
    pickle.extend(b"h\x02.");
    let message = run(&pickle, &Caps::default()).unwrap();
    let Node::Tuple(lists) = message.node(message.root()) else { panic!() };
    for &list in lists {
        assert!(matches!(message.node(list), Node::List(items) if items.len() == turns));
    }
    assert!(started.elapsed() < Duration::from_secs(10));
}
