//! Random bytes, random values and damaged pickles.

use proptest::collection::vec;
use proptest::prelude::*;
use pyisolate_abi::pickle::{Caps, Message, Node, NodeId, Value, decode};

use crate::render::render;
use crate::vectors::{trusted, vectors};

const SMALL: Caps = Caps {
    pickle_bytes: 1 << 16,
    nodes: 500,
    depth: 20,
    decoded_bytes: 1 << 16,
    memo: 500,
    int_bits: 1 << 12,
    buffers: 8,
};

/// What a message promises, whoever wrote the pickle: reads every value and checks the caps.
fn check(message: &Message<'_>, caps: &Caps) {
    assert!(message.len() <= caps.nodes);
    let mut budget = 100_000;
    let depth = depth(message, message.root(), &mut budget);
    assert!(depth <= caps.depth, "{depth} levels");
}

/// Levels below and including `id`; stops looking when `budget` values have been read.
fn depth(message: &Message<'_>, id: NodeId, budget: &mut usize) -> usize {
    if *budget == 0 {
        return 0;
    }
    *budget -= 1;
    let children: Vec<NodeId> = match message.node(id) {
        Node::List(items)
        | Node::Tuple(items)
        | Node::Set(items)
        | Node::FrozenSet(items)
        | Node::Deque { items, .. } => items.to_vec(),
        Node::Dict { entries, .. } => entries.as_flattened().to_vec(),
        Node::Slice { start, stop, step } => vec![start, stop, step],
        Node::Object(object) => object
            .args
            .iter()
            .chain(object.kwargs.as_flattened())
            .copied()
            .chain(object.state.map(|state| state.whole()))
            .collect(),
        _ => return 0,
    };
    1 + children.iter().map(|&child| depth(message, child, budget)).max().unwrap_or(0)
}

fn hashable() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::None),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::Int),
        prop_oneof![Just(0), Just(255), Just(256), Just(i64::from(i32::MIN)), Just(i64::MIN)]
            .prop_map(Value::Int),
        (vec(any::<u8>(), 8..300), 1..=0x7fu8).prop_map(|(mut bytes, top)| {
            bytes.push(top);
            Value::BigInt(bytes)
        }),
        any::<f64>()
            .prop_filter("NaN is not equal to itself", |n| !n.is_nan())
            .prop_map(Value::Float),
        (-1e9..1e9f64, -1e9..1e9f64).prop_map(|(re, im)| Value::Complex(re, im)),
        any::<String>().prop_map(Value::Text),
        "[a-z]{250,260}".prop_map(Value::Text),
        Just(Value::SurrogateText(b"a\xed\xb2\x80".to_vec())),
        vec(any::<u8>(), 0..300).prop_map(Value::Bytes),
        "-?[0-9]{1,9}(\\.[0-9]{0,9})?(E[+-][0-9]{1,3})?".prop_map(Value::Decimal),
        any::<u128>().prop_map(Value::Uuid),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![hashable(), vec(any::<u8>(), 0..20).prop_map(Value::ByteArray)];
    leaf.prop_recursive(6, 200, 10, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..10).prop_map(Value::List),
            vec(inner.clone(), 0..10).prop_map(Value::Tuple),
            vec(hashable(), 0..10).prop_map(Value::Set),
            vec(hashable(), 0..10).prop_map(Value::FrozenSet),
            vec((hashable(), inner), 0..10).prop_map(Value::Dict),
        ]
    })
}

/// Opcodes more often than their share, so that random pickles get somewhere.
fn pickle_like() -> impl Strategy<Value = Vec<u8>> {
    const OPCODES: &[u8] = b"(.01GJKMNRXabehjstu)]}\x81\x85\x86\x87\x88\x89\x8a\x8b\x8c\x8f\x90\x91\x92\x93\x94\x95\x96\x97\x98BC";
    let byte = prop_oneof![3 => prop::sample::select(OPCODES), 2 => 0..4u8, 1 => any::<u8>()];
    vec(byte, 0..200).prop_map(|bytes| [b"\x80\x05", &bytes[..], b"."].concat())
}

proptest! {
    #[test]
    fn any_bytes_are_survived(bytes in vec(any::<u8>(), 0..300)) {
        if let Ok(message) = decode(&bytes, &[4, 8], &trusted(), &SMALL) {
            check(&message, &SMALL);
        }
    }

    #[test]
    fn any_opcodes_are_survived(pickle in pickle_like(), lens in vec(0..9u64, 0..3)) {
        if let Ok(message) = decode(&pickle, &lens, &trusted(), &SMALL) {
            check(&message, &SMALL);
        }
    }

    #[test]
    fn a_value_comes_back_as_it_went(value in value()) {
        let caps = Caps::default();
        let pickle = value.to_pickle();
        let message = decode(&pickle, &[], &trusted(), &caps).unwrap();
        prop_assert_eq!(message.to_value(&caps).unwrap(), value);
        check(&message, &caps);
    }

    #[test]
    fn damaged_pickles_are_survived(
        which in any::<prop::sample::Index>(),
        edits in vec((any::<prop::sample::Index>(), any::<u8>(), 0..4u8), 1..8),
        other in any::<prop::sample::Index>(),
    ) {
        let all = vectors();
        let vector = which.get(&all);
        let mut pickle = vector.pickle.clone();
        for (at, byte, edit) in edits {
            let at = at.index(pickle.len());
            match edit {
                0 => pickle[at] = byte,
                1 => pickle.insert(at, byte),
                2 if pickle.len() > 1 => drop(pickle.remove(at)),
                // Another pickle's body in the middle of this one.
                _ => {
                    let body = &other.get(&all).pickle;
                    let body = body[2..body.len() - 1].to_vec();
                    pickle.splice(at..at, body);
                }
            }
        }
        for caps in [&SMALL, &Caps::default()] {
            if let Ok(message) = decode(&pickle, &vector.buffer_lens, &trusted(), caps) {
                check(&message, caps);
                if message.len() < 1000 && caps == &SMALL {
                    let _ = message.to_value(caps);
                }
            }
        }
    }
}

#[test]
fn large_containers_are_written_in_batches() {
    let caps = Caps::default();
    let items: Vec<_> = (0..2500).map(Value::Int).collect();
    for value in [
        Value::List(items.clone()),
        Value::Tuple(items.clone()),
        Value::Set(items.clone()),
        Value::Dict(items.iter().map(|item| (item.clone(), Value::None)).collect()),
    ] {
        let pickle = value.to_pickle();
        let message = decode(&pickle, &[], &trusted(), &caps).unwrap();
        assert_eq!(message.to_value(&caps).unwrap(), value);
    }
}

#[test]
fn damaged_renderings_do_not_panic() {
    // One byte of each sample replaced in turn: whatever is still accepted can be printed.
    for vector in vectors().iter().filter(|vector| vector.pickle.len() < 60) {
        for at in 2..vector.pickle.len() {
            for byte in [0, 1, b'.', b'(', b')', b'}', 0x85, 0x94, 0xff] {
                let mut pickle = vector.pickle.clone();
                pickle[at] = byte;
                if let Ok(message) = decode(&pickle, &vector.buffer_lens, &trusted(), &SMALL) {
                    assert!(!render(&message, &trusted()).is_empty());
                }
            }
        }
    }
}
