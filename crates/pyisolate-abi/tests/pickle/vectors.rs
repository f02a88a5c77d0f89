//! What CPython and numpy really emit: `vectors.tsv`, written by `vectors.py`.

use std::collections::HashSet;

use pyisolate_abi::pickle::{Caps, DecodeError, Message, Node, NodeId, TrustedNames, decode};

use crate::render::render;

/// One line of `vectors.tsv`.
pub(crate) struct Vector {
    pub(crate) expression: &'static str,
    /// What the error must say, or empty.
    error: &'static str,
    pub(crate) buffer_lens: Vec<u64>,
    pub(crate) pickle: Vec<u8>,
}

impl Vector {
    fn decode(&self) -> Result<Message<'_>, DecodeError> {
        decode(&self.pickle[..], &self.buffer_lens, &trusted(), &Caps::default())
    }
}

pub(crate) fn vectors() -> Vec<Vector> {
    include_str!("vectors.tsv")
        .lines()
        .map(|line| {
            let mut columns = line.split('\t');
            let mut column = || columns.next().expect("four columns a line");
            Vector {
                expression: column(),
                error: column(),
                buffer_lens: column().split(',').filter_map(|len| len.parse().ok()).collect(),
                pickle: unhex(column()),
            }
        })
        .collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let (pairs, _) = text.as_bytes().as_chunks::<2>();
    let digit = |c: u8| char::from(c).to_digit(16).expect("a hexadecimal digit") as u8;
    pairs.iter().map(|[high, low]| digit(*high) << 4 | digit(*low)).collect()
}

pub(crate) fn trusted() -> TrustedNames {
    let mut trusted = TrustedNames::default();
    for class in ["Plain", "Slots", "Frozen", "Colour", "Pair", "Keywords", "Items"] {
        trusted.insert("shapes", class);
    }
    trusted
}

#[test]
fn what_crosses_prints_back_as_it_was_written() {
    let mut accepted = 0;
    for vector in vectors().iter().filter(|vector| vector.error.is_empty()) {
        match vector.decode() {
            Ok(message) => assert_eq!(render(&message, &trusted()), vector.expression),
            Err(error) => panic!("{}: {error}", vector.expression),
        }
        accepted += 1;
    }
    assert!(accepted > 90, "only {accepted} samples");
}

#[test]
fn what_may_not_cross_is_refused_by_name_and_the_cell_lives() {
    let mut refused = 0;
    for vector in vectors().iter().filter(|vector| !vector.error.is_empty()) {
        match vector.decode() {
            Ok(message) => panic!("{} became {}", vector.expression, render(&message, &trusted())),
            Err(error) => {
                let text = error.to_string();
                assert!(text.contains(vector.error), "{}: {text}", vector.expression);
                assert!(!error.is_malformed(), "{}: {text}", vector.expression);
            }
        }
        refused += 1;
    }
    assert!(refused > 25, "only {refused} samples");
}

#[test]
fn registered_classes_are_refused_when_not_registered() {
    for vector in vectors().iter().filter(|vector| vector.expression.starts_with("shapes.")) {
        let result = decode(&vector.pickle[..], &[], &TrustedNames::default(), &Caps::default());
        assert!(
            matches!(result, Err(DecodeError::RefusedClass { .. })),
            "{}: {result:?}",
            vector.expression
        );
    }
}

#[test]
fn every_prefix_of_a_pickle_is_an_error() {
    for vector in vectors() {
        for len in 0..vector.pickle.len() {
            let result =
                decode(&vector.pickle[..len], &vector.buffer_lens, &trusted(), &Caps::default());
            assert!(result.is_err(), "{} cut to {len} bytes", vector.expression);
        }
    }
}

#[test]
fn sharing_survives() {
    // x = [1]; pickle.dumps([x, x, (x,)], 5)
    let pickle =
        b"\x80\x05\x95\x0e\x00\x00\x00\x00\x00\x00\x00]\x94(]\x94K\x01ah\x01h\x01\x85\x94e.";
    let message = decode(&pickle[..], &[], &trusted(), &Caps::default()).unwrap();
    let items = |id: NodeId| match message.node(id) {
        Node::List(items) | Node::Tuple(items) => items,
        other => panic!("{other:?}"),
    };
    let outer = items(message.root());
    assert_eq!(outer[0], outer[1]);
    assert_eq!(items(outer[2]), [outer[0]]);
    assert!(message.is_shared(outer[0]));
    assert!(!message.is_shared(outer[2]) && !message.is_shared(message.root()));
}

#[test]
fn a_message_can_outlive_its_pickle() {
    let message = {
        let pickle = b"\x80\x05\x8c\x03abc.".to_vec();
        decode(&pickle, &[], &trusted(), &Caps::default()).unwrap().into_owned()
    };
    assert!(
        matches!(message.node(message.root()), Node::Text(text) if text.to_str() == Some("abc"))
    );
    let owned =
        decode(b"\x80\x05\x8c\x03abc.".to_vec(), &[], &trusted(), &Caps::default()).unwrap();
    assert_eq!(render(&owned, &trusted()), "\"abc\"");
}

#[test]
fn the_samples_are_distinct() {
    let all = vectors();
    let distinct: HashSet<_> = all.iter().map(|vector| vector.expression).collect();
    assert_eq!(distinct.len(), all.len());
}
