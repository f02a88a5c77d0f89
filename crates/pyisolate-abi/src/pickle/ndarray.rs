//! numpy arrays and scalars.

use super::arena::{NodeId, Slot, Span};
use super::caps::cost;
use super::classes::Class;
use super::dtype::{ByteOrder, DType, ScalarKind};
use super::dtype_state::MAX_DIMENSIONS;
use super::error::DecodeError;
use super::machine::Machine;

/// In which order an array's elements lie in its data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// The last index varies fastest.
    C,
    /// The first index varies fastest.
    Fortran,
    /// As `C` in the shape given, after which the axes are to be permuted:
    /// `array.reshape(shape).transpose(axes)`. Holds a permutation of `0..shape.len()`.
    Transposed(Box<[u8]>),
}

/// Where the elements are.
#[derive(Clone, Copy, Debug)]
pub(super) enum DataPlace {
    Inline(Span),
    Buffer { index: u32, read_only: bool },
}

#[derive(Debug)]
pub(super) struct ArrayParts {
    pub(super) dtype: NodeId,
    pub(super) shape: Box<[u64]>,
    pub(super) order: Order,
    pub(super) data: DataPlace,
}

/// Bytes that an array takes, or `None` if numpy could not address it.
///
/// As numpy does, dimensions of length 0 are left out of the overflow check's product, so that an
/// empty array cannot have an absurd shape.
pub(super) fn byte_count(shape: &[u64], itemsize: u32) -> Option<u64> {
    let extent = shape
        .iter()
        .try_fold(u64::from(itemsize.max(1)), |product, &length| product.checked_mul(length.max(1)))
        .filter(|extent| i64::try_from(*extent).is_ok())?;
    Some(if itemsize == 0 || shape.contains(&0) { 0 } else { extent })
}

impl Machine<'_> {
    /// `_reconstruct(ndarray, (0,), b'b')`: an array that still lacks its state.
    pub(super) fn begin_array(&mut self, subtype: NodeId) -> Result<NodeId, DecodeError> {
        match self.arena.slot(subtype) {
            Slot::Class(Class::NumpyArray) => self.arena.push(Slot::UnbuiltArray, cost::OBJECT),
            found => Err(match self.global_name(found) {
                Some(name) => DecodeError::RefusedClass { name },
                None => self.wrong_type("numpy.ndarray", &found),
            }),
        }
    }

    /// The state is `(1, shape, dtype, is_fortran, data)`.
    pub(super) fn build_array(&mut self, target: NodeId, state: NodeId) -> Result<(), DecodeError> {
        let wrong =
            || self.malformed(Class::NumpyArray, "(1, shape, dtype, is_fortran, bytes) as state");
        let Slot::Tuple(run) = self.arena.slot(state) else { return Err(wrong()) };
        let &[version, shape, dtype, fortran, data] = self.arena.run(run) else {
            return Err(wrong());
        };
        let (Some(1), Slot::Bool(fortran), Slot::Bytes(data)) =
            (self.int(version), self.arena.slot(fortran), self.arena.slot(data))
        else {
            return Err(wrong());
        };
        let order = if fortran { Order::Fortran } else { Order::C };
        let array = self.array(DataPlace::Inline(data), dtype, shape, order)?;
        self.arena.set(target, array);
        Ok(())
    }

    /// `_frombuffer(data, dtype, shape, order, axes)`.
    pub(super) fn array_from_buffer(
        &mut self,
        data: NodeId,
        dtype: NodeId,
        shape: NodeId,
        order: NodeId,
        axes: Option<NodeId>,
    ) -> Result<NodeId, DecodeError> {
        let place = match self.arena.slot(data) {
            Slot::Bytes(span) | Slot::ByteArray(span) => DataPlace::Inline(span),
            Slot::Buffer { index, read_only } => DataPlace::Buffer { index, read_only },
            found => return Err(self.wrong_type("the bytes of an array", &found)),
        };
        let axes = axes.filter(|&axes| !matches!(self.arena.slot(axes), Slot::None));
        let order = match (self.text_bytes(order), axes) {
            (Some(b"C"), None) => Some(Order::C),
            (Some(b"F"), None) => Some(Order::Fortran),
            (Some(b"K"), Some(axes)) => self.axes(axes).map(Order::Transposed),
            _ => None,
        };
        let order =
            order.ok_or_else(|| self.malformed(Class::NumpyFromBuffer, "an order and its axes"))?;
        let array = self.array(place, dtype, shape, order)?;
        if let DataPlace::Buffer { .. } = place {
            self.arena.set(data, Slot::TakenBuffer);
        }
        self.arena.push(array, cost::OBJECT)
    }

    /// Checks that the data is what dtype and shape call for.
    fn array(
        &mut self,
        data: DataPlace,
        dtype: NodeId,
        shape: NodeId,
        order: Order,
    ) -> Result<Slot, DecodeError> {
        let itemsize = self.dtype_parts(dtype)?.dtype.itemsize();
        let shape = self
            .shape(shape)
            .ok_or_else(|| self.malformed(Class::NumpyArray, "a shape of at most 64 lengths"))?;
        if let Order::Transposed(axes) = &order
            && axes.len() != shape.len()
        {
            return Err(self.malformed(Class::NumpyArray, "as many axes as dimensions"));
        }
        let expected = byte_count(&shape, itemsize)
            .ok_or_else(|| self.malformed(Class::NumpyArray, "a shape within the address space"))?;
        let found = match data {
            DataPlace::Inline(span) => {
                // Each array over the same bytes is paid for: the receiver copies them.
                self.arena.charge(span.len as usize)?;
                u64::from(span.len)
            }
            DataPlace::Buffer { index, .. } => self.buffer_lens[index as usize],
        };
        if expected != found {
            return Err(DecodeError::ArraySize { expected, found });
        }
        self.arena.charge(shape.len() * 16)?;
        let index = self.arena.arrays.len() as u32;
        self.arena.arrays.push(ArrayParts { dtype, shape, order, data });
        Ok(Slot::NdArray(index))
    }

    /// A permutation of the axes.
    fn axes(&self, id: NodeId) -> Option<Box<[u8]>> {
        let Slot::Tuple(run) = self.arena.slot(id) else { return None };
        if run.len() > MAX_DIMENSIONS {
            return None;
        }
        let mut seen = 0u64;
        let axes: Box<[u8]> = self
            .arena
            .run(run)
            .iter()
            .map(|&axis| {
                let axis = self.int(axis).filter(|axis| (0..run.len() as i64).contains(axis))?;
                let bit = 1 << axis;
                let is_new = seen & bit == 0;
                seen |= bit;
                is_new.then_some(axis as u8)
            })
            .collect::<Option<_>>()?;
        Some(axes)
    }

    /// `scalar(dtype, data)`.
    pub(super) fn numpy_scalar(
        &mut self,
        dtype: NodeId,
        data: NodeId,
    ) -> Result<NodeId, DecodeError> {
        let wrong = || self.malformed(Class::NumpyScalar, "a dtype and the bytes of one element");
        let Slot::Bytes(span) = self.arena.slot(data) else { return Err(wrong()) };
        if !is_element(&self.dtype_parts(dtype)?.dtype, span.of(self.input.pickle())) {
            return Err(wrong());
        }
        let bytes = cost::OBJECT + span.len as usize;
        self.arena.push(Slot::NumpyScalar { dtype, data: span }, bytes)
    }
}

/// Whether `data` is one element from which numpy can make a Python object.
fn is_element(dtype: &DType, data: &[u8]) -> bool {
    if data.len() != dtype.itemsize() as usize {
        return false;
    }
    match dtype {
        DType::Scalar { kind: ScalarKind::Bool, .. } => data[0] <= 1,
        DType::Scalar { kind: ScalarKind::Text, order, .. } => {
            let (points, _) = data.as_chunks::<4>();
            points.iter().all(|point| {
                let point = match order {
                    ByteOrder::Big => u32::from_be_bytes(*point),
                    _ => u32::from_le_bytes(*point),
                };
                point <= u32::from(char::MAX)
            })
        }
        DType::SubArray { .. } => false,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_counts_do_not_overflow() {
        assert_eq!(byte_count(&[], 8), Some(8));
        assert_eq!(byte_count(&[3, 4], 8), Some(96));
        assert_eq!(byte_count(&[0, 5], 8), Some(0));
        assert_eq!(byte_count(&[7], 0), Some(0));
        assert_eq!(byte_count(&[1 << 40, 1 << 40], 1), None);
        assert_eq!(byte_count(&[0, 1 << 40, 1 << 40], 1), None);
        assert_eq!(byte_count(&[u64::MAX], 0), None);
    }
}
