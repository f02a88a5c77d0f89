//! Keeps a guest from choosing dict keys that make Python's hash table quadratic.
//!
//! CPython randomises the hashes of `str`, `bytes` and what is hashed through them, so a guest
//! cannot aim those. Numbers and tuples of numbers hash the same in every process: a dict of 100,000
//! multiples of `2**61 - 1` takes CPython minutes to build, and it would hold the host's interpreter
//! lock meanwhile. So for large dicts and sets the hashes are computed here as CPython computes
//! them, and the table's probes are counted as CPython makes them.

use super::arena::{Arena, NodeId, Slot};
use super::caps::Caps;
use super::error::DecodeError;
use super::finish::Mark;
use super::hash::PythonHash;

/// Probes a member that are allowed on average. Random hashes need about two; the worst regular
/// ones, multiples of 2**24 or 2**32, need fifty among 300,000 members. At this budget the slowest
/// message that [`Caps::nodes`] allows takes CPython some seconds to convert.
const PROBES_PER_MEMBER: usize = 64;
/// Containers with at most this many members cannot exceed that budget, even if all hashes are equal.
const UNCHECKED_MEMBERS: usize = 2 * PROBES_PER_MEMBER;
/// Most pairs of keys, over the containers of a message, whose hashes cannot be computed here
/// (instances of registered classes, `Decimal`, `Fraction`, `frozenset` and such). If all of them
/// collide, each pair is one comparison of about a microsecond, so 4 Mi are some seconds. One dict
/// may have 2896 such keys.
const UNKNOWN_PAIRS: usize = 4 << 20;

/// What is left of the work that a message's keys may cause.
pub(super) struct KeyBudget {
    unknown_pairs: usize,
    /// Python hashes a tuple or a long number by walking all of it, each time, shared parts again:
    /// this many visits.
    visits: usize,
}

impl KeyBudget {
    pub(super) fn new(caps: &Caps) -> Self {
        Self { unknown_pairs: UNKNOWN_PAIRS, visits: caps.nodes }
    }

    /// Accounts for a dict or set whose keys are every `stride`-th value of `members`.
    pub(super) fn check(
        &mut self,
        arena: &Arena,
        pickle: &[u8],
        marks: &[Mark],
        members: &[NodeId],
        stride: usize,
    ) -> Result<(), DecodeError> {
        let keys = || members.iter().step_by(stride).copied();
        let count = members.len() / stride;
        let too_costly = || DecodeError::CostlyKeys { members: count };

        let visits = keys().map(|key| visits(arena, marks, key)).sum();
        self.visits = self.visits.checked_sub(visits).ok_or_else(too_costly)?;

        // The common cases: text keys, or few of the simplest kinds.
        let is_text = |key| matches!(arena.slot(key), Slot::Text(_) | Slot::Bytes(_));
        let is_simple = |key| is_text(key) || matches!(arena.slot(key), Slot::Int(_) | Slot::None);
        if keys().all(is_text) || (count <= UNCHECKED_MEMBERS && keys().all(is_simple)) {
            return Ok(());
        }
        let python = PythonHash::new(arena, pickle);
        let hashes: Vec<_> = keys().filter_map(|key| python.hash(key)).collect();
        let unknown = count - hashes.len();
        let pairs = unknown.saturating_mul(unknown.saturating_sub(1)) / 2;
        self.unknown_pairs = self.unknown_pairs.checked_sub(pairs).ok_or_else(too_costly)?;
        let budget = hashes.len() * PROBES_PER_MEMBER;
        let fits = hashes.len() <= UNCHECKED_MEMBERS
            || if stride == 1 { Set::holds(&hashes, budget) } else { Dict::holds(&hashes, budget) };
        if fits { Ok(()) } else { Err(too_costly()) }
    }
}

/// What Python visits to hash `key` once: each part of a tuple, each 8 bytes of a long number.
pub(super) fn visits(arena: &Arena, marks: &[Mark], key: NodeId) -> usize {
    match arena.slot(key) {
        Slot::BigInt(span) => 1 + span.len as usize / 8,
        Slot::Decimal(text) => match arena.slot(text) {
            Slot::Text(span) => 1 + span.len as usize / 8,
            _ => 1,
        },
        _ => marks[key.index()].weight().max(1) as usize,
    }
}

/// An empty place; CPython keeps -1 for errors, so it is no hash.
const EMPTY: u64 = u64::MAX;

/// How one of CPython's hash tables grows and looks for a place.
trait Table {
    /// Whether a table of `size` places is to grow when it holds `used`, and to at least how many.
    fn grown(used: usize, size: usize) -> Option<usize>;

    /// Puts `hash` in; `None` if that exhausts `budget`.
    fn insert(places: &mut [u64], hash: u64, budget: &mut usize) -> Option<()>;

    /// Puts all in, in order; whether `budget` is enough.
    fn holds(hashes: &[u64], mut budget: usize) -> bool {
        let mut places = vec![EMPTY; 8];
        hashes
            .iter()
            .enumerate()
            .try_for_each(|(used, &hash)| {
                if let Some(wanted) = Self::grown(used, places.len()) {
                    places = vec![EMPTY; wanted.next_power_of_two()];
                    hashes[..used]
                        .iter()
                        .try_for_each(|&hash| Self::insert(&mut places, hash, &mut budget))?;
                }
                Self::insert(&mut places, hash, &mut budget)
            })
            .is_some()
    }
}

/// Takes one probe off the budget.
fn spend(budget: &mut usize) -> Option<()> {
    *budget = budget.checked_sub(1)?;
    Some(())
}

/// Where to look after `at`, as in `Objects/dictobject.c` and `Objects/setobject.c`.
fn jump(at: usize, perturb: &mut u64, mask: usize) -> usize {
    *perturb >>= 5;
    at.wrapping_mul(5).wrapping_add(*perturb as usize).wrapping_add(1) & mask
}

struct Dict;

impl Table for Dict {
    fn grown(used: usize, size: usize) -> Option<usize> {
        (used >= size * 2 / 3).then_some(used * 3)
    }

    fn insert(places: &mut [u64], hash: u64, budget: &mut usize) -> Option<()> {
        let mask = places.len() - 1;
        let (mut at, mut perturb) = (hash as usize & mask, hash);
        while places[at] != EMPTY {
            spend(budget)?;
            at = jump(at, &mut perturb, mask);
        }
        places[at] = hash;
        Some(())
    }
}

struct Set;

impl Table for Set {
    fn grown(used: usize, size: usize) -> Option<usize> {
        let wanted = if used > 50_000 { used * 2 } else { used * 4 };
        (used * 5 >= (size - 1) * 3).then_some(wanted + 1)
    }

    /// Looks at nine neighbours before it jumps. Those in one cache line cost little, so what counts
    /// is a jump, and each member of equal hash, which Python has to compare.
    fn insert(places: &mut [u64], hash: u64, budget: &mut usize) -> Option<()> {
        const NEIGHBOURS: usize = 9;
        let mask = places.len() - 1;
        let (mut at, mut perturb) = (hash as usize & mask, hash);
        loop {
            let last = if at + NEIGHBOURS <= mask { at + NEIGHBOURS } else { at };
            for place in &mut places[at..=last] {
                if *place == EMPTY {
                    *place = hash;
                    return Some(());
                }
                if *place == hash {
                    spend(budget)?;
                }
            }
            spend(budget)?;
            at = jump(at, &mut perturb, mask);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::hash::MODULUS;
    use super::*;

    #[test]
    fn equal_hashes_exhaust_the_budget() {
        for hash in [0, 7, 1 << 60] {
            assert!(!Dict::holds(&[hash; 3000], 64 * 3000));
            assert!(!Set::holds(&[hash; 3000], 64 * 3000));
        }
        let counted: Vec<_> = (0..100_000).collect();
        assert!(Dict::holds(&counted, 0) && Set::holds(&counted, 0));
    }

    #[test]
    fn regular_hashes_do_not() {
        for step in [1, 2, 8, 1000, 1 << 10, 1 << 20, 1 << 32, 1 << 40, 86_400_000_000_000] {
            for count in [300, 3000, 100_000] {
                let hashes: Vec<_> = (0..count).map(|n| n * step % MODULUS).collect();
                let budget = hashes.len() * PROBES_PER_MEMBER;
                assert!(Dict::holds(&hashes, budget), "{count} multiples of {step}");
                assert!(Set::holds(&hashes, budget), "{count} multiples of {step}");
            }
        }
    }
}
