//! BUILD: what a value makes of its state.

use super::arena::{Arena, DictKind, NodeId, Slot};
use super::class_name::ClassName;
use super::classes::{Class, TrustedNames};
use super::error::DecodeError;
use super::machine::Machine;
use super::number;

impl Machine<'_> {
    /// Gives `state` to `target`, each value at most once.
    pub(super) fn build(&mut self, target: NodeId, state: NodeId) -> Result<(), DecodeError> {
        match self.arena.slot(target) {
            Slot::Object(index) => {
                let object = &mut self.arena.objects[index as usize];
                if object.state.is_some() {
                    return Err(self.wrong_type("an object without state", &Slot::Object(index)));
                }
                object.state = Some(state);
                Ok(())
            }
            Slot::UnbuiltUuid => self.build_uuid(target, state),
            Slot::UnbuiltDType(index) => self.build_dtype(target, index, state),
            Slot::UnbuiltArray => self.build_array(target, state),
            found @ (Slot::Dict(..) | Slot::Deque { .. } | Slot::Set(_) | Slot::List(_)) => {
                Err(DecodeError::RefusedState { kind: found.kind() })
            }
            found => Err(self.wrong_type("a value that takes state", &found)),
        }
    }

    fn build_uuid(&mut self, target: NodeId, state: NodeId) -> Result<(), DecodeError> {
        let wrong = || self.malformed(Class::Uuid, "an int of 128 bits and is_safe");
        let Slot::Dict(DictKind::Plain, run) = self.arena.slot(state) else { return Err(wrong()) };
        let (mut int, mut safe) = (None, Some(super::SafeUuid::Unknown));
        let (entries, _) = self.arena.run(run).as_chunks::<2>();
        for &[key, value] in entries {
            match self.text_bytes(key) {
                Some(b"int") => int = Some(value),
                Some(b"is_safe") => safe = self.safe_uuid(value),
                _ => return Err(wrong()),
            }
        }
        let (Some(int), Some(safe)) = (int, safe) else { return Err(wrong()) };
        let fits = match self.arena.slot(int) {
            Slot::Int(value) => value >= 0,
            Slot::BigInt(span) => number::to_u128(span.of(self.input.pickle())).is_some(),
            _ => false,
        };
        if !fits {
            return Err(wrong());
        }
        self.arena.set(target, Slot::Uuid { int, safe });
        Ok(())
    }
}

impl Arena {
    /// The name of a class or function; `None` for a value.
    pub(super) fn global_name(
        &self,
        slot: Slot,
        pickle: &[u8],
        trusted: &TrustedNames,
    ) -> Option<ClassName> {
        match slot {
            Slot::Class(class) => Some(ClassName::new(b"", class.name().as_bytes())),
            Slot::Trusted(index) => {
                let name = trusted.names().get(index as usize)?;
                Some(ClassName::new(name.module.as_bytes(), name.qualname.as_bytes()))
            }
            Slot::Unknown { module, qualname } => match (self.slot(module), self.slot(qualname)) {
                (Slot::Text(module), Slot::Text(qualname)) => {
                    Some(ClassName::new(module.of(pickle), qualname.of(pickle)))
                }
                _ => None,
            },
            // One step only: an attribute of an attribute is named by the function that gets it.
            Slot::Attribute { owner } => match self.slot(owner) {
                owner @ (Slot::Class(_) | Slot::Trusted(_) | Slot::Unknown { .. }) => {
                    self.global_name(owner, pickle, trusted)
                }
                _ => Some(ClassName::new(b"builtins", b"getattr")),
            },
            _ => None,
        }
    }
}
