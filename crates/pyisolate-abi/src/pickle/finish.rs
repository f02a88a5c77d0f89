//! The last pass over a message: no cycles, not too deep, only data, only hashable keys.
//!
//! It runs when everything has been read, because until then a list, dict or set may still grow.

use super::arena::{Arena, NodeId, Run, Slot};
use super::caps::Caps;
use super::classes::TrustedNames;
use super::collisions::{self, KeyBudget};
use super::dtype::{DType, ScalarKind};
use super::error::DecodeError;
use super::number;

/// Checks everything reachable from `root` and notes which values are shared.
pub(super) fn check(
    arena: &mut Arena,
    root: NodeId,
    pickle: &[u8],
    trusted: &TrustedNames,
    caps: &Caps,
) -> Result<(), DecodeError> {
    let slot = arena.slot(root);
    if Children::of(arena, slot).is_none() {
        return check_leaf(arena, slot, pickle, trusted);
    }
    let mut walk = Walk {
        marks: vec![Mark::default(); arena.slots.len()],
        shared: vec![false; arena.slots.len()],
        path: Vec::new(),
        keys: KeyBudget::new(caps),
        arena,
        pickle,
        trusted,
        depth_cap: caps.depth.min(usize::from(u16::MAX - 1)),
    };
    walk.enter(root)?;
    while let Some(step) = walk.path.last_mut() {
        let next = step.children.get(&walk.arena.children, step.next);
        step.next += 1;
        match next {
            Some(child) => walk.reach(child)?,
            None => walk.leave()?,
        }
    }
    let shared = walk.shared;
    arena.shared = shared;
    Ok(())
}

/// What is known about one value.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Mark {
    /// What Python visits to hash it, which for a container is all it holds with shared parts
    /// counted each time; 0 for a leaf.
    weight: u32,
    /// Levels of containers below and including it.
    height: u16,
    progress: Progress,
    seen: bool,
    unhashable: bool,
}

impl Mark {
    pub(super) fn weight(self) -> u32 {
        self.weight
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Progress {
    #[default]
    New,
    Entered,
    Left,
}

/// A container on the path from the root, and which child comes next.
struct Step {
    id: NodeId,
    children: Children,
    next: usize,
}

/// What a container refers to.
#[derive(Clone, Copy)]
enum Children {
    Run(Run),
    Few([Option<NodeId>; 3]),
}

impl Children {
    /// `None` for a leaf, whose parts were checked when it was made and cannot change.
    fn of(arena: &Arena, slot: Slot) -> Option<Self> {
        match slot {
            Slot::List(run)
            | Slot::Tuple(run)
            | Slot::Set(run)
            | Slot::FrozenSet(run)
            | Slot::Dict(_, run) => Some(Self::Run(run)),
            Slot::Deque { items, .. } => Self::of(arena, arena.slot(items)),
            Slot::Slice { start, stop, step } => {
                Some(Self::Few([Some(start), Some(stop), Some(step)]))
            }
            Slot::Object(index) => {
                let object = &arena.objects[index as usize];
                let mut few = [Some(object.args), None, None];
                let rest = [object.kwargs, object.state].into_iter().flatten();
                for (place, id) in few[1..].iter_mut().zip(rest) {
                    *place = Some(id);
                }
                Some(Self::Few(few))
            }
            _ => None,
        }
    }

    fn get(self, pool: &[NodeId], index: usize) -> Option<NodeId> {
        match self {
            Self::Run(run) => run.of(pool).get(index).copied(),
            Self::Few(few) => few.get(index).copied().flatten(),
        }
    }
}

struct Walk<'a> {
    arena: &'a Arena,
    pickle: &'a [u8],
    trusted: &'a TrustedNames,
    marks: Vec<Mark>,
    shared: Vec<bool>,
    path: Vec<Step>,
    keys: KeyBudget,
    depth_cap: usize,
}

impl Walk<'_> {
    fn enter(&mut self, id: NodeId) -> Result<(), DecodeError> {
        let slot = self.arena.slot(id);
        let Some(children) = Children::of(self.arena, slot) else {
            return check_leaf(self.arena, slot, self.pickle, self.trusted);
        };
        if self.path.len() >= self.depth_cap {
            return Err(DecodeError::Depth { cap: self.depth_cap });
        }
        let mark = &mut self.marks[id.index()];
        mark.progress = Progress::Entered;
        mark.height = 1;
        mark.weight = 1;
        self.path.push(Step { id, children, next: 0 });
        Ok(())
    }

    /// Follows a reference from the last container of the path.
    fn reach(&mut self, child: NodeId) -> Result<(), DecodeError> {
        let mark = &mut self.marks[child.index()];
        if mark.seen {
            self.shared[child.index()] = true;
        }
        mark.seen = true;
        match mark.progress {
            Progress::New => self.enter(child)?,
            Progress::Entered => return Err(DecodeError::Cyclic),
            Progress::Left => {}
        }
        // A container just entered reports to its parent when it is left.
        if self.path.last().is_some_and(|step| step.id != child) {
            self.report(child)?;
        }
        Ok(())
    }

    /// Adds what is known about `child`, now complete, to the last container of the path.
    fn report(&mut self, child: NodeId) -> Result<(), DecodeError> {
        let Some(parent) = self.path.last().map(|step| step.id) else { return Ok(()) };
        let child_mark = self.marks[child.index()];
        let visits = collisions::visits(self.arena, &self.marks, child);
        let unhashable = !self.is_hashable(child);
        let mark = &mut self.marks[parent.index()];
        mark.weight = mark.weight.saturating_add(u32::try_from(visits).unwrap_or(u32::MAX));
        mark.unhashable |= unhashable;
        mark.height = mark.height.max(child_mark.height + 1);
        if usize::from(mark.height) > self.depth_cap {
            return Err(DecodeError::Depth { cap: self.depth_cap });
        }
        Ok(())
    }

    fn leave(&mut self) -> Result<(), DecodeError> {
        let Some(step) = self.path.pop() else { return Ok(()) };
        self.marks[step.id.index()].progress = Progress::Left;
        match self.arena.slot(step.id) {
            Slot::Dict(_, run) => self.check_keys(run, 2)?,
            Slot::Set(run) | Slot::FrozenSet(run) => self.check_keys(run, 1)?,
            _ => {}
        }
        self.report(step.id)
    }

    /// Checks every `stride`-th value of `run`.
    fn check_keys(&mut self, run: Run, stride: usize) -> Result<(), DecodeError> {
        let members = self.arena.run(run);
        for &key in members.iter().step_by(stride) {
            if !self.is_hashable(key) {
                let kind = match self.arena.slot(key) {
                    Slot::Tuple(_) => "a tuple with an unhashable part",
                    slot => slot.kind(),
                };
                return Err(DecodeError::Unhashable { kind });
            }
        }
        self.keys.check(self.arena, self.pickle, &self.marks, members, stride)
    }

    /// Whether Python can hash it, as far as the message tells.
    ///
    /// An instance of a registered class is taken at its class's word; a converter has to be ready
    /// for its `__hash__` to raise.
    fn is_hashable(&self, id: NodeId) -> bool {
        match self.arena.slot(id) {
            Slot::Tuple(_) | Slot::Slice { .. } => !self.marks[id.index()].unhashable,
            Slot::List(_)
            | Slot::Set(_)
            | Slot::Dict(..)
            | Slot::Deque { .. }
            | Slot::ByteArray(_)
            | Slot::Buffer { .. }
            | Slot::NdArray(_) => false,
            Slot::Decimal(text) => match self.arena.slot(text) {
                Slot::Text(span) => !number::is_signalling(span.of(self.pickle)),
                _ => false,
            },
            Slot::DType(index) => is_simple(&self.arena.dtypes[index as usize].dtype),
            Slot::NumpyScalar { dtype, .. } => match self.arena.slot(dtype) {
                Slot::DType(index) => is_simple(&self.arena.dtypes[index as usize].dtype),
                _ => false,
            },
            _ => true,
        }
    }
}

/// Whether numpy hashes it in constant time; records and raw bytes are hashed by their parts.
fn is_simple(dtype: &DType) -> bool {
    match dtype {
        DType::Scalar { kind, .. } => *kind != ScalarKind::Void,
        DType::Time { .. } => true,
        DType::Record { .. } | DType::SubArray { .. } => false,
    }
}

/// Refuses what is no value of a message.
fn check_leaf(
    arena: &Arena,
    slot: Slot,
    pickle: &[u8],
    trusted: &TrustedNames,
) -> Result<(), DecodeError> {
    match slot {
        Slot::Attribute { .. } | Slot::Class(_) | Slot::Trusted(_) | Slot::Unknown { .. } => {
            match arena.global_name(slot, pickle, trusted) {
                Some(name) => Err(DecodeError::RefusedGlobal { name }),
                None => Err(DecodeError::Unfinished { kind: slot.kind() }),
            }
        }
        Slot::UnbuiltUuid | Slot::UnbuiltDType(_) | Slot::UnbuiltArray => {
            Err(DecodeError::Unfinished { kind: slot.kind() })
        }
        Slot::TakenBuffer => Err(DecodeError::ReusedBuffer),
        _ => Ok(()),
    }
}
