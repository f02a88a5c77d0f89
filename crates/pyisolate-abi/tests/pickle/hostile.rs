//! Pickles that no honest guest sends. Each ends in an error, soon and without much memory.

use std::time::{Duration, Instant};

use pyisolate_abi::pickle::{Caps, DecodeError, Message, Node, TrustedNames, Value, decode};

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

/// `assert_fails!(parts, pattern)`
macro_rules! assert_fails {
    ($result:expr, $pattern:pat) => {
        assert_error($result, |error| matches!(error, $pattern))
    };
}

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
fn code_is_never_reached() {
    let call = |module: &str, name: &str| parts(&[&global(module, name), &text("id"), b"\x85R"]);
    for (module, name) in [
        ("os", "system"),
        ("posix", "system"),
        ("builtins", "eval"),
        ("builtins", "exec"),
        ("subprocess", "Popen"),
        ("builtins", "__import__"),
        ("datetime", "sys.exit"),
        ("numpy", "load"),
        ("collections", "namedtuple"),
    ] {
        let error = call(module, name).expect_err("a call");
        assert!(matches!(error, DecodeError::RefusedClass { .. }), "{error:?}");
        assert!(error.to_string().contains(&format!("`{module}.{name}`")), "{error}");
    }
    // getattr on a known class leads nowhere either.
    let getattr = [
        global("builtins", "getattr"),
        global("datetime", "datetime"),
        text("__subclasses__"),
        b"\x86R".to_vec(),
    ]
    .concat();
    assert_fails!(parts(&[&getattr]), DecodeError::RefusedGlobal { .. });
    assert_fails!(parts(&[&getattr, b")R"]), DecodeError::RefusedClass { .. });
    let twice = [global("builtins", "getattr"), getattr, text("x"), b"\x86R)R".to_vec()].concat();
    assert_fails!(parts(&[&twice]), DecodeError::RefusedClass { .. });
    // A known class takes only what it writes itself.
    assert_fails!(
        parts(&[&global("datetime", "datetime"), b")\x81"]),
        DecodeError::Malformed { .. }
    );
    assert_fails!(parts(&[&global("uuid", "UUID"), b")R"]), DecodeError::Malformed { .. });
    // The names of a call are data until then.
    assert_fails!(parts(&[b"NN\x93"]), DecodeError::WrongType { .. });
    assert_fails!(parts(&[b"N)R"]), DecodeError::WrongType { .. });
    assert_fails!(parts(&[&global("datetime", "date"), b"NR"]), DecodeError::WrongType { .. });
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
fn standard_types_check_their_arguments() {
    let bad: [(&str, &str, &[u8]); 16] = [
        ("builtins", "complex", b"K\x01K\x02\x86R"),
        ("builtins", "range", b"K\x00K\x09K\x00\x87R"),
        ("builtins", "range", b"K\x00K\x09N\x87R"),
        ("datetime", "date", b"C\x04\x07\xe7\x02\x1d\x85R"),
        ("datetime", "date", b"C\x03\x07\xe7\x02\x85R"),
        ("datetime", "time", b"C\x06\x18\x00\x00\x00\x00\x00\x85R"),
        ("datetime", "datetime", b"\x8c\x0a0123456789\x85R"),
        ("datetime", "timedelta", b"K\x00J\xff\xff\xff\xffK\x00\x87R"),
        ("datetime", "timezone", b"K\x00\x85R"),
        ("decimal", "Decimal", b"\x8c\x02ab\x85R"),
        ("fractions", "Fraction", b"K\x01K\x00\x86R"),
        ("fractions", "Fraction", b"K\x01J\xff\xff\xff\xff\x86R"),
        ("pathlib", "PurePosixPath", b"N\x85R"),
        ("collections", "deque", b")J\xff\xff\xff\xff\x86R"),
        ("collections", "Counter", b"]\x85R"),
        ("uuid", "UUID", b")\x81}\x8c\x03intJ\xff\xff\xff\xffsb"),
    ];
    for (module, name, rest) in bad {
        assert_error(parts(&[&global(module, name), rest]), |error| {
            matches!(error, DecodeError::Malformed { .. }) && error.is_malformed()
        });
    }
    assert_fails!(parts(&[&global("uuid", "UUID"), b")\x81"]), DecodeError::Unfinished { .. });
    assert_fails!(
        parts(&[&global("datetime", "time"), b"C\x06\x01\x00\x00\x00\x00\x00N\x86R"]),
        DecodeError::WrongType { .. }
    );
    assert_fails!(parts(&[b"]}b"]), DecodeError::RefusedState { .. });
    assert_fails!(parts(&[b"N}b"]), DecodeError::WrongType { .. });
    let object = [global("shapes", "Plain"), b")\x81".to_vec()].concat();
    assert!(parts(&[&object, b"}b"]).is_ok());
    assert_fails!(parts(&[&object, b"}b}b"]), DecodeError::WrongType { .. });
    assert_fails!(parts(&[&object, b"NNs"]), DecodeError::RefusedItems { .. });
    assert_fails!(
        parts(&[&global("shapes", "Plain"), b")}NNs\x92"]),
        DecodeError::WrongType { .. }
    );
    assert_fails!(parts(&[&global("shapes", "Plain")]), DecodeError::RefusedGlobal { .. });
}

#[test]
fn a_counter_does_not_change_with_its_argument() {
    // The dict is memoised, given to Counter, and grows afterwards.
    let pickle = [
        START,
        b"(}\x94K\x01K\x02s0",
        &global("collections", "Counter"),
        b"h\x00\x85R",
        b"h\x00(K\x05K\x06K\x07K\x08K\x09K\x0au]K\x01at.",
    ]
    .concat();
    let message = run(&pickle, &Caps::default()).unwrap();
    let Node::Tuple(items) = message.node(message.root()) else { panic!() };
    assert!(matches!(message.node(items[0]), Node::Dict { entries, .. } if entries.len() == 1));
    assert!(matches!(message.node(items[1]), Node::Dict { entries, .. } if entries.len() == 4));
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

#[test]
fn numpy_1_and_cpython_3_14_names_are_known() {
    let old = [
        global("numpy.core.multiarray", "scalar"),
        int_dtype(),
        b"C\x04\x01\x00\x00\x00\x86R".to_vec(),
    ]
    .concat();
    assert!(parts(&[&old]).is_ok());
    for module in ["pathlib", "pathlib._local"] {
        assert!(parts(&[&global(module, "PureWindowsPath"), &text("c:/a"), b"\x85R"]).is_ok());
    }
}
