//! How a dtype is pickled: the type string, then the state tuple that completes it.

use std::collections::HashMap;

use super::arena::{DictKind, NodeId, Run, Slot};
use super::caps::cost;
use super::class_name::printable;
use super::classes::Class;
use super::dtype::{ByteOrder, DType, Field, ScalarKind, TimeUnit};
use super::error::DecodeError;
use super::machine::Machine;

/// A dtype and how large it is when every nested one is written out.
#[derive(Debug)]
pub(super) struct DTypeParts {
    pub(super) dtype: DType,
    depth: u32,
    fields: u32,
}

/// Deepest nesting of records and subarrays. Ordinary ones nest two or three levels; numpy and a
/// converter recurse over them.
const MAX_DTYPE_DEPTH: u32 = 16;
/// Most fields once every nested record is written out, since numpy walks them all to compare or
/// print a dtype: as many columns as the widest tables have.
const MAX_DTYPE_FIELDS: u32 = 1 << 16;
/// Most dimensions, numpy 2's own limit.
pub(super) const MAX_DIMENSIONS: usize = 64;

/// numpy's `NPY_ITEM_HASOBJECT` and `NPY_ALIGNED_STRUCT`.
const FLAG_HAS_OBJECT: i64 = 0x01;
const FLAG_ALIGNED: i64 = 0x80;

const TOO_LARGE: &str =
    "it nests too deep or has too many fields; send its columns as separate arrays";

impl Machine<'_> {
    /// `numpy.dtype(name, False, True)`: a dtype that still lacks its state.
    pub(super) fn begin_dtype(&mut self, name: NodeId) -> Result<NodeId, DecodeError> {
        let Some(text) = self.text_bytes(name) else {
            let found = self.arena.slot(name);
            return Err(match self.global_name(found) {
                Some(name) => DecodeError::RefusedClass { name },
                None => self.wrong_type("a type string", &found),
            });
        };
        let Some(dtype) = parse(text) else {
            let advice = if text.starts_with(b"O") {
                "it holds Python objects; send value.tolist(), or convert with astype first"
            } else {
                "it is not supported; convert with astype first"
            };
            return Err(DecodeError::RefusedDType { dtype: printable(text, 40), advice });
        };
        let index = self.arena.dtypes.len() as u32;
        let id = self.arena.push(Slot::UnbuiltDType(index), cost::OBJECT)?;
        self.arena.dtypes.push(DTypeParts { dtype, depth: 0, fields: 1 });
        Ok(id)
    }

    fn wrong_dtype(&self, expected: &'static str) -> DecodeError {
        self.malformed(Class::NumpyDType, expected)
    }

    fn refused_dtype(&self, index: u32, advice: &'static str) -> DecodeError {
        let dtype = self.arena.dtypes[index as usize].dtype.to_string();
        DecodeError::RefusedDType { dtype, advice }
    }

    /// The state is `(version, order, subarray, names, fields, itemsize, alignment, flags)` and,
    /// in version 4, `metadata`.
    pub(super) fn build_dtype(
        &mut self,
        target: NodeId,
        index: u32,
        state: NodeId,
    ) -> Result<(), DecodeError> {
        let wrong = || self.wrong_dtype("a state of version 3 or 4");
        let Slot::Tuple(run) = self.arena.slot(state) else { return Err(wrong()) };
        let (head, metadata) = match *self.arena.run(run) {
            [ref head @ .., metadata] if run.len() == 9 => (head, Some(metadata)),
            ref head => (head, None),
        };
        let &[version, order, subarray, names, fields, itemsize, _alignment, flags] = head else {
            return Err(wrong());
        };
        let order = match self.text_bytes(order) {
            Some(b"<") => ByteOrder::Little,
            Some(b">") => ByteOrder::Big,
            Some(b"|") => ByteOrder::NotApplicable,
            _ => return Err(self.wrong_dtype("a byte order of '<', '>' or '|'")),
        };
        let (Some(3 | 4), Some(flags), Some(itemsize)) =
            (self.int(version), self.int(flags), self.int(itemsize))
        else {
            return Err(wrong());
        };
        if flags & FLAG_HAS_OBJECT != 0 {
            return Err(self.refused_dtype(index, "it holds Python objects; send value.tolist()"));
        }
        let begun = &self.arena.dtypes[index as usize].dtype;
        let sized = matches!(
            begun,
            DType::Scalar { kind: ScalarKind::Bytes | ScalarKind::Text | ScalarKind::Void, .. }
        );
        if sized && itemsize != i64::from(begun.itemsize()) {
            return Err(self.wrong_dtype("the item size that its type string says"));
        }

        let parts = match (self.arena.slot(subarray), self.arena.slot(names), begun) {
            (Slot::None, Slot::None, &DType::Scalar { kind, itemsize, .. }) => {
                self.no_metadata(index, metadata)?;
                DTypeParts { dtype: DType::Scalar { kind, order, itemsize }, depth: 0, fields: 1 }
            }
            (Slot::None, Slot::None, &DType::Time { is_delta, .. }) => {
                let (unit, count) = self.time_unit(index, metadata)?;
                DTypeParts {
                    dtype: DType::Time { is_delta, order, unit, count },
                    depth: 0,
                    fields: 1,
                }
            }
            (
                Slot::Tuple(subarray),
                Slot::None,
                &DType::Scalar { kind: ScalarKind::Void, itemsize, .. },
            ) => {
                self.no_metadata(index, metadata)?;
                self.subarray(subarray, itemsize)?
            }
            (
                Slot::None,
                Slot::Tuple(names),
                &DType::Scalar { kind: ScalarKind::Void, itemsize, .. },
            ) => {
                self.no_metadata(index, metadata)?;
                self.record(index, names, fields, itemsize, flags & FLAG_ALIGNED != 0)?
            }
            _ => return Err(self.wrong_dtype("fields only in a type of raw bytes")),
        };
        if parts.depth > MAX_DTYPE_DEPTH || parts.fields > MAX_DTYPE_FIELDS {
            return Err(self.refused_dtype(index, TOO_LARGE));
        }
        self.arena.dtypes[index as usize] = parts;
        self.arena.set(target, Slot::DType(index));
        Ok(())
    }

    fn no_metadata(&self, index: u32, metadata: Option<NodeId>) -> Result<(), DecodeError> {
        match metadata.map(|metadata| self.arena.slot(metadata)) {
            None | Some(Slot::None) => Ok(()),
            Some(_) => {
                Err(self
                    .refused_dtype(index, "it has metadata; send the metadata beside the array"))
            }
        }
    }

    /// Metadata of the time types: `(None, (unit, count, 1, 1))`.
    fn time_unit(
        &self,
        index: u32,
        metadata: Option<NodeId>,
    ) -> Result<(TimeUnit, u32), DecodeError> {
        let wrong = || self.wrong_dtype("(None, (unit, count, 1, 1)) as time metadata");
        let Some(Slot::Tuple(outer)) = metadata.map(|id| self.arena.slot(id)) else {
            return Err(wrong());
        };
        let &[users, unit] = self.arena.run(outer) else { return Err(wrong()) };
        match self.arena.slot(users) {
            Slot::None => {}
            Slot::Dict(DictKind::Plain, run) if run.len() == 0 => {}
            _ => {
                return Err(self
                    .refused_dtype(index, "it has metadata; send the metadata beside the array"));
            }
        }
        let Slot::Tuple(inner) = self.arena.slot(unit) else { return Err(wrong()) };
        let &[code, count, divisor, events] = self.arena.run(inner) else { return Err(wrong()) };
        let unit = match self.arena.slot(code) {
            Slot::Bytes(span) => TimeUnit::parse(span.of(self.input.pickle())),
            _ => None,
        };
        let count = self.int(count).filter(|count| (1..=i64::from(i32::MAX)).contains(count));
        match (unit, count, self.int(divisor), self.int(events)) {
            (Some(unit), Some(count), Some(1), Some(1)) => Ok((unit, count as u32)),
            _ => Err(wrong()),
        }
    }

    /// The finished dtype `id`.
    pub(super) fn dtype_parts(&self, id: NodeId) -> Result<&DTypeParts, DecodeError> {
        match self.arena.slot(id) {
            Slot::DType(index) => Ok(&self.arena.dtypes[index as usize]),
            found => Err(match self.global_name(found) {
                Some(name) => DecodeError::RefusedClass { name },
                None => self.wrong_type("a complete numpy dtype", &found),
            }),
        }
    }

    fn subarray(&mut self, run: Run, itemsize: u32) -> Result<DTypeParts, DecodeError> {
        let wrong = || self.wrong_dtype("(dtype, shape) of its own size as subarray");
        let &[element, shape] = self.arena.run(run) else { return Err(wrong()) };
        let parts = self.dtype_parts(element)?;
        let (depth, fields) = (parts.depth + 1, parts.fields);
        let shape = self.shape(shape).ok_or_else(wrong)?;
        if super::ndarray::byte_count(&shape, parts.dtype.itemsize()) != Some(u64::from(itemsize)) {
            return Err(wrong());
        }
        self.arena.charge(shape.len() * 16)?;
        Ok(DTypeParts { dtype: DType::SubArray { element, shape, itemsize }, depth, fields })
    }

    fn record(
        &mut self,
        index: u32,
        names: Run,
        fields: NodeId,
        itemsize: u32,
        aligned: bool,
    ) -> Result<DTypeParts, DecodeError> {
        self.arena.charge(names.len().saturating_mul(cost::OBJECT))?;
        let wrong = || self.wrong_dtype("one (dtype, offset) within the record for each name");
        let entries = match self.arena.slot(fields) {
            Slot::None => Run::default(),
            Slot::Dict(DictKind::Plain, run) => run,
            _ => return Err(wrong()),
        };
        let (entries, _) = self.arena.run(entries).as_chunks::<2>();
        let mut by_name = HashMap::with_capacity(entries.len().min(names.len()));
        for &[key, value] in entries {
            by_name.insert(self.text_bytes(key).ok_or_else(wrong)?, value);
        }
        let (mut depth, mut expanded) = (0, 1u32);
        let mut list = Vec::with_capacity(names.len());
        for &name in self.arena.run(names) {
            let text = self.text_bytes(name).ok_or_else(wrong)?;
            let field = by_name.remove(text).ok_or_else(wrong)?;
            let Slot::Tuple(field) = self.arena.slot(field) else { return Err(wrong()) };
            let (dtype, offset) = match *self.arena.run(field) {
                [dtype, offset] => (dtype, offset),
                [_, _, _] => {
                    return Err(self.refused_dtype(
                        index,
                        "its fields have titles; rename the fields instead",
                    ));
                }
                _ => return Err(wrong()),
            };
            let parts = self.dtype_parts(dtype)?;
            let offset =
                self.int(offset).and_then(|offset| u32::try_from(offset).ok()).ok_or_else(wrong)?;
            if u64::from(offset) + u64::from(parts.dtype.itemsize()) > u64::from(itemsize) {
                return Err(wrong());
            }
            depth = depth.max(parts.depth + 1);
            expanded = expanded.saturating_add(parts.fields);
            list.push(Field { name, dtype, offset });
        }
        if !by_name.is_empty() {
            return Err(wrong());
        }
        let dtype = DType::Record { fields: list.into(), itemsize, aligned };
        Ok(DTypeParts { dtype, depth, fields: expanded })
    }

    /// A shape: a tuple of lengths, or one length.
    pub(super) fn shape(&self, id: NodeId) -> Option<Box<[u64]>> {
        let length = |id| self.int(id).and_then(|length| u64::try_from(length).ok());
        match self.arena.slot(id) {
            Slot::Tuple(run) if run.len() <= MAX_DIMENSIONS => {
                self.arena.run(run).iter().map(|&id| length(id)).collect()
            }
            Slot::Int(_) => Some([length(id)?].into()),
            _ => None,
        }
    }
}

/// Reads a type string without byte order, such as `f8` or `U5`.
fn parse(text: &[u8]) -> Option<DType> {
    let (&code, digits) = text.split_first()?;
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let size: u32 = str::from_utf8(digits).ok()?.parse().ok()?;
    let (kind, sizes): (_, &[u32]) = match code {
        b'b' => (ScalarKind::Bool, &[1]),
        b'i' => (ScalarKind::Int, &[1, 2, 4, 8]),
        b'u' => (ScalarKind::UInt, &[1, 2, 4, 8]),
        b'f' => (ScalarKind::Float, &[2, 4, 8, 16]),
        b'c' => (ScalarKind::Complex, &[8, 16, 32]),
        b'S' => (ScalarKind::Bytes, &[]),
        b'U' => (ScalarKind::Text, &[]),
        b'V' => (ScalarKind::Void, &[]),
        b'M' | b'm' if size == 8 => {
            let (order, unit) = (ByteOrder::NotApplicable, TimeUnit::Generic);
            return Some(DType::Time { is_delta: code == b'm', order, unit, count: 1 });
        }
        _ => return None,
    };
    if !sizes.is_empty() && !sizes.contains(&size) {
        return None;
    }
    let itemsize = if kind == ScalarKind::Text { size.checked_mul(4)? } else { size };
    // numpy keeps the size of an element in a C int.
    i32::try_from(itemsize).ok()?;
    Some(DType::Scalar { kind, order: ByteOrder::NotApplicable, itemsize })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn type_strings_are_checked() {
        for text in ["b1", "i8", "u2", "f2", "f16", "c16", "S0", "U7", "V12", "M8", "m8"] {
            assert!(parse(text.as_bytes()).is_some(), "{text}");
        }
        for text in
            ["", "O8", "i3", "b2", "f", "i-1", "U1073741824", "S9999999999", "M4", "x8", "f+8"]
        {
            assert_eq!(parse(text.as_bytes()), None, "{text}");
        }
    }
}
