//! Opcodes, the stack, marks, lengths, depth and cycles.

use pyisolate_abi::pickle::{Caps, DecodeError};

use super::{START, assert_error, global, parts, run};

#[test]
fn only_protocol_4_and_5_are_read() {
    let missing = |bytes: &[u8]| run(bytes, &Caps::default()).map(drop);
    assert_fails!(missing(b""), DecodeError::Protocol { .. });
    assert_fails!(missing(b"N."), DecodeError::Protocol { .. });
    assert_fails!(missing(b"\x80"), DecodeError::Protocol { .. });
    for version in [0, 1, 2, 3, 6, 255] {
        assert_fails!(missing(&[0x80, version, b'N', b'.']), DecodeError::Protocol { .. });
    }
    assert_fails!(parts(&[b"N\x80\x05"]), DecodeError::Opcode { opcode: 0x80, .. });
}

#[test]
fn foreign_opcodes_are_refused_by_name() {
    for (opcode, name) in [
        (b'c', "GLOBAL"),
        (b'2', "DUP"),
        (b'q', "BINPUT"),
        (b'i', "INST"),
        (b'Q', "BINPERSID"),
        (0x82, "EXT1"),
        (b'r', "LONG_BINPUT"),
    ] {
        let error = parts(&[b"N", &[opcode], b"os\nsystem\n"]).expect_err("a foreign opcode");
        assert!(error.to_string().contains(name), "{error}");
        assert!(error.is_malformed());
    }
    assert!(parts(&[b"N\xff"]).expect_err("no opcode").to_string().contains("0xff"));
}

#[test]
fn the_stack_is_guarded() {
    assert_fails!(parts(&[]), DecodeError::StackUnderflow { .. });
    for bytes in [
        &b"0"[..],
        b"\x85",
        b"N\x86",
        b"a",
        b"Na",
        b"NNs",
        b"R",
        b"NR",
        b"b",
        b"\x94",
        b"\x98",
        b"\x93",
        b"\x92",
    ] {
        assert_fails!(parts(&[bytes]), DecodeError::StackUnderflow { .. });
    }
    // Nothing reaches below a mark.
    for bytes in [&b"N(\x94"[..], b"](Na", b"](\x85", b"}(NNs", b")(b", b"N("] {
        assert_fails!(parts(&[bytes]), DecodeError::StackUnderflow { .. });
    }
    for bytes in [&b"t"[..], b"1", b"]e", b"}u", b"\x8f\x90", b"\x91"] {
        assert_fails!(parts(&[bytes]), DecodeError::NoMark { .. });
    }
    assert_fails!(parts(&[b"(e"]), DecodeError::StackUnderflow { .. });
    assert_fails!(parts(&[b"NN"]), DecodeError::LeftOver { count: 1 });
    assert_fails!(parts(&[b"((N10NN"]), DecodeError::LeftOver { .. });
    assert_fails!(parts(&[b"}(Nu"]), DecodeError::OddItems { .. });
    assert_fails!(parts(&[b"N(Ne"]), DecodeError::WrongType { .. });
    assert_fails!(parts(&[b"](Nu"]), DecodeError::OddItems { .. });
    assert_fails!(parts(&[b"](NN\x90"]), DecodeError::WrongType { .. });
    // POP takes a mark, as in CPython.
    assert!(parts(&[b"N(0"]).is_ok());
    assert!(parts(&[b"N(N00"]).is_ok());
}

#[test]
fn lengths_are_not_believed() {
    let cases: [&[u8]; 12] = [
        b"X\xff\xff\xff\xff",
        b"\x8d\xff\xff\xff\xff\xff\xff\xff\xff",
        b"B\xff\xff\xff\x7f",
        b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7f",
        b"\x96\x00\x00\x00\x00\x01\x00\x00\x00",
        b"\x8a\xff",
        b"\x8b\xff\xff\xff\xff",
        b"\x8b\x00\x00\x00\x80",
        b"\x8c\xff",
        b"C\x05abcd",
        b"\x95\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\x95\x02\x00\x00\x00\x00\x00\x00\x00",
    ];
    for bytes in cases {
        assert_fails!(parts(&[bytes]), DecodeError::Truncated { .. });
    }
    assert_fails!(
        run(b"\x80\x05N.N", &Caps::default()).map(drop),
        DecodeError::TrailingBytes { offset: 4, count: 1 }
    );
    assert_fails!(parts(&[b"\x8c\x02\xff\xfe"]), DecodeError::TextEncoding { offset: 2 });
}

#[test]
fn nesting_is_capped_without_recursion() {
    let nested = |open: &[u8], close: &[u8], levels: usize| {
        [START, &open.repeat(levels), &close.repeat(levels - 1), b"."].concat()
    };
    let depth = |pickle: Vec<u8>| run(&pickle, &Caps::default()).map(drop);
    assert!(depth(nested(b"]", b"a", 200)).is_ok());
    assert_fails!(depth(nested(b"]", b"a", 201)), DecodeError::Depth { cap: 200 });
    assert_fails!(depth(nested(b"]", b"a", 1_000_000)), DecodeError::Depth { .. });
    let tuples = [START, b"N", &b"\x85".repeat(1_000_000), b"."].concat();
    assert_fails!(depth(tuples), DecodeError::Depth { .. });
    // The longest way counts, whichever is walked first.
    let mut pickle = [START, b"]\x94"].concat();
    for level in 0..150u8 {
        pickle.extend([b'0', b']', 0x94, b'h', level, b'a']);
    }
    pickle.extend(b"0(h\x96t\x94");
    pickle.extend(b"\x85".repeat(60));
    pickle.push(b'.');
    assert_fails!(depth(pickle), DecodeError::Depth { .. });
}

#[test]
fn cycles_are_refused() {
    for bytes in [&b"]\x94h\x00a"[..], b"}\x94Nh\x00s", b"]\x94h\x00\x85a", b"](]\x94}Nh\x00sae"] {
        assert_fails!(parts(&[bytes]), DecodeError::Cyclic);
    }
    assert_fails!(parts(&[&global("collections", "deque"), b")R\x94h\x00a"]), DecodeError::Cyclic);
    assert_fails!(parts(&[&global("shapes", "Plain"), b")\x81\x94h\x00b"]), DecodeError::Cyclic);
}
