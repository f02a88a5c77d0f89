//! The machine's stack, marks and memo, and the containers that are filled from the stack.

use super::arena::{NodeId, Slot};
use super::caps::cost;
use super::error::DecodeError;
use super::machine::Machine;

/// Values that take one slot each however often they occur.
#[derive(Clone, Copy)]
pub(super) enum Singleton {
    None,
    True,
    False,
}

impl Machine<'_> {
    pub(super) fn room_on_stack(&self) -> Result<(), DecodeError> {
        if self.stack.len() + self.marks.len() >= self.caps.nodes {
            return Err(DecodeError::Nodes { cap: self.caps.nodes });
        }
        Ok(())
    }

    pub(super) fn push_id(&mut self, id: NodeId) -> Result<(), DecodeError> {
        self.room_on_stack()?;
        self.stack.push(id);
        Ok(())
    }

    pub(super) fn push(&mut self, slot: Slot, bytes: usize) -> Result<(), DecodeError> {
        let id = self.arena.push(slot, bytes)?;
        self.push_id(id)
    }

    pub(super) fn push_singleton(
        &mut self,
        which: Singleton,
        slot: Slot,
    ) -> Result<(), DecodeError> {
        let id = match self.singletons[which as usize] {
            Some(id) => id,
            None => {
                let id = self.arena.push(slot, cost::NUMBER)?;
                self.singletons[which as usize] = Some(id);
                id
            }
        };
        self.push_id(id)
    }

    pub(super) fn underflow(&self) -> DecodeError {
        DecodeError::StackUnderflow { offset: self.input.opcode_at }
    }

    pub(super) fn pop(&mut self) -> Result<NodeId, DecodeError> {
        if self.stack.len() <= self.floor {
            return Err(self.underflow());
        }
        self.stack.pop().ok_or_else(|| self.underflow())
    }

    pub(super) fn top(&self) -> Result<NodeId, DecodeError> {
        match self.stack.last() {
            Some(&id) if self.stack.len() > self.floor => Ok(id),
            _ => Err(self.underflow()),
        }
    }

    /// Where the topmost `count` values start.
    pub(super) fn below(&self, count: usize) -> Result<usize, DecodeError> {
        match self.stack.len().checked_sub(count) {
            Some(start) if start >= self.floor => Ok(start),
            _ => Err(self.underflow()),
        }
    }

    pub(super) fn mark(&mut self) -> Result<(), DecodeError> {
        self.room_on_stack()?;
        self.floor = self.stack.len();
        // The stack is no longer than `Caps::nodes` allows slots, which fit a `u32`.
        self.marks.push(self.floor as u32);
        Ok(())
    }

    /// Where the values above the last mark start.
    pub(super) fn pop_mark(&mut self) -> Result<usize, DecodeError> {
        let start = self.marks.pop().ok_or(DecodeError::NoMark { offset: self.input.opcode_at })?;
        self.floor = self.marks.last().map_or(0, |&floor| floor as usize);
        Ok(start as usize)
    }

    /// POP takes a mark if one is on top, as in CPython.
    pub(super) fn pop_any(&mut self) -> Result<(), DecodeError> {
        if !self.marks.is_empty() && self.stack.len() == self.floor {
            self.pop_mark()?;
            return Ok(());
        }
        self.pop().map(drop)
    }

    pub(super) fn pop_call(&mut self) -> Result<(NodeId, NodeId), DecodeError> {
        let args = self.pop()?;
        Ok((self.pop()?, args))
    }

    pub(super) fn memoize(&mut self) -> Result<(), DecodeError> {
        let top = self.top()?;
        if self.memo.len() >= self.caps.memo {
            return Err(DecodeError::Memo { cap: self.caps.memo });
        }
        // With no way to copy it, each buffer ends in one place, and nothing multiplies it.
        if let Slot::Buffer { .. } = self.arena.slot(top) {
            return Err(DecodeError::ReusedBuffer);
        }
        self.memo.push(top);
        Ok(())
    }

    pub(super) fn recall(&mut self, index: u64) -> Result<(), DecodeError> {
        match usize::try_from(index).ok().and_then(|index| self.memo.get(index)) {
            Some(&id) => self.push_id(id),
            None => Err(DecodeError::NoSuchMemo {
                offset: self.input.opcode_at,
                index,
                count: self.memo.len(),
            }),
        }
    }

    pub(super) fn tuple_of(&mut self, count: usize) -> Result<(), DecodeError> {
        let start = self.below(count)?;
        self.tuple(start)
    }

    pub(super) fn tuple(&mut self, start: usize) -> Result<(), DecodeError> {
        let items = &self.stack[start..];
        self.arena.charge(items.len() * cost::ITEM)?;
        let run = self.arena.new_run(items);
        self.stack.truncate(start);
        self.push(Slot::Tuple(run), cost::SEQUENCE)
    }

    pub(super) fn frozenset(&mut self) -> Result<(), DecodeError> {
        let start = self.pop_mark()?;
        let items = &self.stack[start..];
        self.arena.charge(items.len() * cost::MEMBER)?;
        let run = self.arena.new_run(items);
        self.stack.truncate(start);
        self.push(Slot::FrozenSet(run), cost::SET)
    }

    pub(super) fn append_one(&mut self) -> Result<(), DecodeError> {
        let start = self.below(1)?;
        self.append(start)
    }

    /// The value that `items`, which start at `start`, go into.
    pub(super) fn container(&self, start: usize) -> Result<NodeId, DecodeError> {
        match start.checked_sub(1) {
            Some(below) if below >= self.floor => Ok(self.stack[below]),
            _ => Err(self.underflow()),
        }
    }

    pub(super) fn append(&mut self, start: usize) -> Result<(), DecodeError> {
        let target = self.container(start)?;
        let list = match self.arena.slot(target) {
            Slot::List(_) => target,
            Slot::Deque { items, .. } => items,
            found => return Err(self.refused_items("a list or deque", found)),
        };
        self.arena.extend(list, &self.stack[start..])?;
        self.stack.truncate(start);
        Ok(())
    }

    pub(super) fn set_items(&mut self, start: usize) -> Result<(), DecodeError> {
        let target = self.container(start)?;
        let items = &self.stack[start..];
        if !items.len().is_multiple_of(2) {
            return Err(DecodeError::OddItems { offset: self.input.opcode_at });
        }
        match self.arena.slot(target) {
            Slot::Dict(..) => self.arena.extend(target, items)?,
            found => return Err(self.refused_items("a dict", found)),
        };
        self.stack.truncate(start);
        Ok(())
    }

    pub(super) fn add_items(&mut self) -> Result<(), DecodeError> {
        let start = self.pop_mark()?;
        let target = self.container(start)?;
        match self.arena.slot(target) {
            Slot::Set(_) => self.arena.extend(target, &self.stack[start..])?,
            found => return Err(self.refused_items("a set", found)),
        };
        self.stack.truncate(start);
        Ok(())
    }
}
