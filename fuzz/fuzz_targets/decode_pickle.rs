//! Any bytes as a guest's pickle: the decoder neither panics nor exceeds its caps, and whatever it
//! accepts can be read to the end.
//!
//! The first byte says how many out-of-band buffers come with the pickle (0 to 3), and as many bytes
//! give their lengths; the rest is the pickle.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pyisolate_abi::pickle::{Caps, Message, Node, NodeId, TrustedNames, decode};

/// Small, so that every cap is reached by an input of ordinary size.
const CAPS: Caps = Caps {
    pickle_bytes: 1 << 16,
    nodes: 4096,
    depth: 50,
    decoded_bytes: 1 << 20,
    memo: 4096,
    int_bits: 1 << 12,
    buffers: 3,
};

fuzz_target!(|data: &[u8]| {
    let Some((&count, rest)) = data.split_first() else { return };
    let Some((lens, pickle)) = rest.split_at_checked(usize::from(count % 4)) else { return };
    let lens: Vec<u64> = lens.iter().copied().map(u64::from).collect();
    let mut trusted = TrustedNames::default();
    trusted.insert("shapes", "Plain");

    match decode(pickle, &lens, &trusted, &CAPS) {
        Ok(message) => {
            assert!(message.len() <= CAPS.nodes);
            let mut seen = vec![false; message.len()];
            read(&message, message.root(), CAPS.depth, &mut seen);
            // What is plain comes back the same, written and read again.
            if let Ok(value) = message.to_value(&CAPS) {
                let again = value.to_pickle();
                let again =
                    decode(&again, &[], &trusted, &Caps::default()).expect("our own pickle");
                let again = again.to_value(&Caps::default()).expect("our own value");
                // Compared as text, since NaN differs from itself.
                assert_eq!(format!("{again:?}"), format!("{value:?}"));
            }
        }
        Err(error) => assert!(error.to_string().len() < 2000),
    }
});

/// Reads `id` and what it refers to, each value once.
fn read(message: &Message<'_>, id: NodeId, depth_left: usize, seen: &mut [bool]) {
    if std::mem::replace(&mut seen[id.index()], true) {
        return;
    }
    let each = |ids: &[NodeId], seen: &mut [bool]| {
        let depth_left = depth_left.checked_sub(1).expect("no deeper than the cap");
        ids.iter().for_each(|&id| read(message, id, depth_left, seen));
    };
    match message.node(id) {
        Node::List(ids) | Node::Tuple(ids) | Node::Set(ids) | Node::FrozenSet(ids) => {
            each(ids, seen)
        }
        Node::Deque { items, .. } => each(items, seen),
        Node::Dict { entries, .. } => each(entries.as_flattened(), seen),
        Node::Slice { start, stop, step } => each(&[start, stop, step], seen),
        Node::Object(object) => {
            each(object.args, seen);
            each(object.kwargs.as_flattened(), seen);
            each(object.state.map(|state| state.whole()).as_slice(), seen);
        }
        _ => {}
    }
}
