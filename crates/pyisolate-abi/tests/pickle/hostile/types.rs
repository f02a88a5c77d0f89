//! Which classes a pickle reaches, and with what arguments.

use pyisolate_abi::pickle::{Caps, DecodeError, Node};

use super::{START, assert_error, global, int_dtype, parts, run, text};

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
