//! Arrays, their buffers and their dtypes.

use pyisolate_abi::pickle::{Caps, DecodeError, TrustedNames, decode};

use super::{START, assert_error, global, int_dtype, parts, text};

#[test]
fn array_data_has_the_size_of_its_shape() {
    let array = |shape: &[u8], lens: &[u64]| {
        let pickle = [
            START,
            &global("numpy._core.numeric", "_frombuffer"),
            b"(\x97",
            &int_dtype(),
            shape,
            &text("C"),
            b"tR.",
        ]
        .concat();
        decode(pickle, lens, &TrustedNames::default(), &Caps::default()).map(drop)
    };
    assert!(array(b"K\x03\x85", &[12]).is_ok());
    assert_fails!(array(b"K\x03\x85", &[13]), DecodeError::ArraySize { expected: 12, found: 13 });
    assert_fails!(array(b"K\x03\x85", &[u64::MAX]), DecodeError::ArraySize { .. });
    assert_fails!(array(b"K\x03\x85", &[]), DecodeError::MissingBuffer { .. });
    assert_fails!(array(b"K\x03\x85", &[12, 12]), DecodeError::UnusedBuffers { count: 2, used: 1 });
    assert_fails!(array(b"J\xff\xff\xff\xff\x85", &[12]), DecodeError::Malformed { .. });
    let huge = b"\x8a\x08\x00\x00\x00\x00\x00\x00\x00\x40";
    assert_fails!(array(&[&huge[..], huge, b"\x86"].concat(), &[0]), DecodeError::Malformed { .. });
    assert_fails!(
        array(&[b"(".to_vec(), b"K\x01".repeat(65), b"t".to_vec()].concat(), &[4]),
        DecodeError::Malformed { .. }
    );
}

#[test]
fn a_buffer_is_used_once() {
    let run = |body: &[u8]| {
        let pickle = [START, body, b"."].concat();
        decode(pickle, &[12], &TrustedNames::default(), &Caps::default()).map(drop)
    };
    assert_fails!(run(b"\x97\x94"), DecodeError::ReusedBuffer);
    // Two arrays by way of a shared argument tuple.
    let args = [b"(\x97".to_vec(), int_dtype(), b"K\x03\x85\x8c\x01Ct\x94".to_vec()].concat();
    let from_buffer = global("numpy._core.numeric", "_frombuffer");
    let both =
        [b"]".to_vec(), args.clone(), b"0".to_vec(), from_buffer.clone(), b"h\x00Ra".to_vec()]
            .concat();
    assert!(run(&both).is_ok());
    let twice = [&both[..], &from_buffer, b"h\x00Ra"].concat();
    assert_fails!(run(&twice), DecodeError::WrongType { .. });
    // The array and its buffer.
    assert_fails!(run(&[&both[..], b"h\x00a"].concat()), DecodeError::ReusedBuffer);
}

#[test]
fn nested_dtypes_are_capped() {
    let wrap = |inner: &[u8], fields: usize, size: u32| {
        let mut out = [
            global("numpy", "dtype"),
            text(&format!("V{size}")),
            b"\x89\x88\x87R(K\x03\x8c\x01|N(".to_vec(),
        ]
        .concat();
        (0..fields).for_each(|i| out.extend(text(&i.to_string())));
        out.extend(b"t}(");
        for i in 0..fields {
            out.extend(text(&i.to_string()));
            if i == 0 {
                out.extend([inner, b"\x94"].concat())
            } else {
                out.extend([b'j', MARK_INDEX.get(), 0, 0, 0])
            }
            out.extend(b"K\x00\x86");
        }
        out.extend([&b"uJ"[..], &size.to_le_bytes(), b"K\x01K\x00tb"].concat());
        MARK_INDEX.set(MARK_INDEX.get() + 1);
        out
    };
    // Only the innermost dtype of each level is memoised, in order, so the index counts the levels.
    thread_local!(static INDEX: std::cell::Cell<u8> = const { std::cell::Cell::new(0) });
    struct Index;
    impl Index {
        fn get(&self) -> u8 {
            INDEX.get()
        }
        fn set(&self, value: u8) {
            INDEX.set(value)
        }
    }
    static MARK_INDEX: Index = Index;

    let mut deep = int_dtype();
    for _ in 0..20 {
        deep = wrap(&deep, 1, 4);
    }
    assert_fails!(parts(&[&deep]), DecodeError::RefusedDType { .. });
    INDEX.set(0);
    let mut wide = int_dtype();
    for _ in 0..8 {
        wide = wrap(&wide, 8, 4);
    }
    assert_fails!(parts(&[&wide]), DecodeError::RefusedDType { .. });
    INDEX.set(0);
    assert!(parts(&[&wrap(&wrap(&int_dtype(), 8, 4), 8, 4)]).is_ok());
}
