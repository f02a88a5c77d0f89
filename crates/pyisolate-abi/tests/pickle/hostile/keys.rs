//! Keys that have no hash, or a costly one.

use pyisolate_abi::pickle::{Caps, DecodeError, Value};

use super::{START, assert_error, global, parts, run, text};

#[test]
fn keys_are_hashable() {
    for key in
        [&b"]"[..], b"}", b"\x8f", b"]\x85", b"]\x85\x85", b"\x96\x00\x00\x00\x00\x00\x00\x00\x00"]
    {
        assert_fails!(parts(&[b"}", key, b"Ns"]), DecodeError::Unhashable { .. });
        assert_fails!(parts(&[b"\x8f(", key, b"\x90"]), DecodeError::Unhashable { .. });
        assert_fails!(parts(&[b"(", key, b"\x91"]), DecodeError::Unhashable { .. });
    }
    let decimal = [global("decimal", "Decimal"), text("sNaN"), b"\x85R".to_vec()].concat();
    assert_fails!(parts(&[b"}", &decimal, b"Ns"]), DecodeError::Unhashable { .. });
    // A list that becomes a key before it has its items.
    assert_fails!(parts(&[b"}]\x94\x85Nsh\x00Na0"]), DecodeError::Unhashable { .. });
    assert!(parts(&[b"})N\x85\x86Ns"]).is_ok());
}

#[test]
fn colliding_keys_are_refused() {
    let modulus = (1i64 << 61) - 1;
    let dict = |keys: &dyn Fn(i64) -> Value| {
        let entries = (0..3000).map(|i| (keys(i), Value::None)).collect();
        let pickle = Value::Dict(entries).to_pickle();
        let set = Value::Set((0..3000).map(keys).collect()).to_pickle();
        let [dict, set] = [pickle, set].map(|pickle| run(&pickle, &Caps::default()).map(drop));
        assert_eq!(dict.is_ok(), set.is_ok(), "{dict:?} {set:?}");
        dict
    };
    // Multiples of the modulus all hash to 0.
    let multiple = |i: i64| {
        let value = i128::from(modulus) * i128::from(i);
        Value::BigInt(value.to_le_bytes().to_vec())
    };
    assert_fails!(dict(&multiple), DecodeError::CostlyKeys { members: 3000 });
    assert_fails!(
        dict(&|i| Value::Tuple(vec![multiple(i), Value::Int(1)])),
        DecodeError::CostlyKeys { .. }
    );
    // The same when an equal string or None, written anew each time, stands beside the number.
    assert_fails!(
        dict(&|i| Value::Tuple(vec!["x".into(), multiple(i)])),
        DecodeError::CostlyKeys { .. }
    );
    assert_fails!(
        dict(&|i| Value::Tuple(vec![Value::None, Value::Bytes(vec![7; 600]), multiple(i)])),
        DecodeError::CostlyKeys { .. }
    );
    // Ordinary keys, also regular ones.
    assert!(dict(&Value::Int).is_ok());
    assert!(dict(&|i| Value::Int(-i)).is_ok());
    assert!(dict(&|i| Value::Int(i << 32)).is_ok());
    assert!(dict(&|i| Value::Int(i * 1000)).is_ok());
    assert!(dict(&|i| Value::Float(i as f64 / 8.0)).is_ok());
    assert!(dict(&|i| Value::Text(i.to_string())).is_ok());
    assert!(dict(&|i| Value::Tuple(vec![Value::Int(i % 60), Value::Int(i / 60)])).is_ok());
    assert!(dict(&|i| Value::Tuple(vec![i.to_string().as_str().into(), Value::Int(i)])).is_ok());
    assert!(dict(&|i| Value::Uuid(0x1234_5678 << 64 | i as u128)).is_ok());
}

#[test]
fn a_tuple_that_is_costly_to_hash_is_no_key() {
    // Sixty doublings: Python would visit 2**60 items to hash it.
    let mut pickle = [START, b"})\x94"].concat();
    for level in 0..60u8 {
        pickle.extend([b'0', b'h', level, b'h', level, 0x86, 0x94]);
    }
    pickle.extend(b"Ns.");
    assert_fails!(run(&pickle, &Caps::default()).map(drop), DecodeError::CostlyKeys { members: 1 });
}

#[test]
fn a_long_number_is_hashed_only_so_often() {
    // One integer of 128 KiB as the key of 100,000 entries, or once in each of as many tuples.
    let long = [&b"\x8b"[..], &(1u32 << 17).to_le_bytes(), &[0x7f; 1 << 17], b"\x94"].concat();
    for entry in [&b"h\x00N"[..], b"h\x00\x85N"] {
        let pickle = [START, &long, b"0}(", &entry.repeat(100_000), b"u."].concat();
        assert_fails!(run(&pickle, &Caps::default()).map(drop), DecodeError::CostlyKeys { .. });
    }
}

#[test]
fn keys_of_unknown_hash_are_few() {
    let keyed = |count: i64, dicts: usize| {
        let decimal = |i: i64| Value::Decimal(i.to_string());
        let dict = Value::Dict((0..count).map(|i| (decimal(i), Value::None)).collect());
        run(&Value::List(vec![dict; dicts]).to_pickle(), &Caps::default()).map(drop)
    };
    assert!(keyed(2000, 1).is_ok());
    assert!(keyed(5, 10_000).is_ok());
    assert_fails!(keyed(3000, 1), DecodeError::CostlyKeys { members: 3000 });
    assert_fails!(keyed(100, 1000), DecodeError::CostlyKeys { members: 100 });
}
