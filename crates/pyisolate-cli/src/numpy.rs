//! The elements of numpy arrays and scalars.

use pyisolate_supervisor::abi::pickle::{ByteOrder, DType, Order, ScalarKind};

use crate::text::{push, write_bytes, write_text};

/// One element, read from its bytes.
#[derive(Debug)]
pub(crate) enum Element<'m> {
    Bool(bool),
    Int(i64),
    UInt(u64),
    Single(f32),
    Float(f64),
    Complex(f64, f64),
    Bytes(&'m [u8]),
    Text(String),
    /// A `datetime64` or `timedelta64`, in ticks of its unit.
    Ticks(i64),
    /// A record, or a type that has no Rust equivalent, such as `long double`.
    Raw(&'m [u8]),
}

/// Reads an element of `dtype` from exactly its bytes.
pub(crate) fn element<'m>(dtype: &DType, data: &'m [u8]) -> Element<'m> {
    let (kind, order) = match dtype {
        DType::Scalar { kind, order, .. } => (*kind, *order),
        DType::Time { order, .. } => {
            return little(data, *order)
                .map_or(Element::Raw(data), |bytes| Element::Ticks(i64::from_le_bytes(bytes)));
        }
        DType::Record { .. } | DType::SubArray { .. } => return Element::Raw(data),
    };
    let read = match kind {
        ScalarKind::Bool => data.first().map(|byte| Element::Bool(*byte != 0)),
        ScalarKind::Int => signed(data, order).map(Element::Int),
        ScalarKind::UInt => unsigned(data, order).map(Element::UInt),
        ScalarKind::Float => real(data, order),
        ScalarKind::Complex => complex(data, order),
        ScalarKind::Bytes => {
            let end = data.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
            Some(Element::Bytes(&data[..end]))
        }
        ScalarKind::Text => Some(Element::Text(text(data, order))),
        ScalarKind::Void => None,
    };
    read.unwrap_or(Element::Raw(data))
}

/// The bytes, lowest first.
fn little<const N: usize>(data: &[u8], order: ByteOrder) -> Option<[u8; N]> {
    let mut bytes: [u8; N] = data.try_into().ok()?;
    if order == ByteOrder::Big {
        bytes.reverse();
    }
    Some(bytes)
}

fn unsigned(data: &[u8], order: ByteOrder) -> Option<u64> {
    Some(match data.len() {
        1 => u8::from_le_bytes(little(data, order)?).into(),
        2 => u16::from_le_bytes(little(data, order)?).into(),
        4 => u32::from_le_bytes(little(data, order)?).into(),
        8 => u64::from_le_bytes(little(data, order)?),
        _ => return None,
    })
}

fn signed(data: &[u8], order: ByteOrder) -> Option<i64> {
    Some(match data.len() {
        1 => i8::from_le_bytes(little(data, order)?).into(),
        2 => i16::from_le_bytes(little(data, order)?).into(),
        4 => i32::from_le_bytes(little(data, order)?).into(),
        8 => i64::from_le_bytes(little(data, order)?),
        _ => return None,
    })
}

fn real<'m>(data: &[u8], order: ByteOrder) -> Option<Element<'m>> {
    Some(match data.len() {
        2 => Element::Single(half(u16::from_le_bytes(little(data, order)?))),
        4 => Element::Single(f32::from_le_bytes(little(data, order)?)),
        8 => Element::Float(f64::from_le_bytes(little(data, order)?)),
        _ => return None,
    })
}

fn complex<'m>(data: &[u8], order: ByteOrder) -> Option<Element<'m>> {
    let (re, im) = data.split_at(data.len() / 2);
    let part = |data| match real(data, order)? {
        Element::Single(value) => Some(f64::from(value)),
        Element::Float(value) => Some(value),
        _ => None,
    };
    Some(Element::Complex(part(re)?, part(im)?))
}

/// A 16-bit float: a sign, five bits of exponent, ten of fraction. Exact.
fn half(bits: u16) -> f32 {
    let fraction = f32::from(bits & 0x3ff);
    let magnitude = match i32::from(bits >> 10 & 0x1f) {
        0 => fraction * 2_f32.powi(-24),
        31 if fraction == 0.0 => f32::INFINITY,
        31 => f32::NAN,
        exponent => (1024.0 + fraction) * 2_f32.powi(exponent - 25),
    };
    if bits & 0x8000 == 0 { magnitude } else { -magnitude }
}

/// UCS-4, padded with zeros; what is no character becomes U+FFFD.
fn text(data: &[u8], order: ByteOrder) -> String {
    let code = |chunk: &[u8]| little(chunk, order).map_or(0, u32::from_le_bytes);
    let text: String = data
        .chunks_exact(4)
        .map(|chunk| char::from_u32(code(chunk)).unwrap_or(char::REPLACEMENT_CHARACTER))
        .collect();
    text.trim_end_matches('\0').to_owned()
}

/// numpy's name of a dtype, such as `float64` or `datetime64[ns]`.
pub(crate) fn name(dtype: &DType) -> String {
    match dtype {
        DType::Scalar { kind, itemsize, .. } => {
            let bits = u64::from(*itemsize) * 8;
            match kind {
                ScalarKind::Bool => "bool".to_owned(),
                ScalarKind::Int => format!("int{bits}"),
                ScalarKind::UInt => format!("uint{bits}"),
                ScalarKind::Float => format!("float{bits}"),
                ScalarKind::Complex => format!("complex{bits}"),
                ScalarKind::Bytes | ScalarKind::Text | ScalarKind::Void => format!("'{dtype}'"),
            }
        }
        DType::Time { is_delta, .. } => {
            let text = dtype.to_string();
            let unit = text.find('[').map_or("", |at| &text[at..]);
            format!("{}64{unit}", if *is_delta { "timedelta" } else { "datetime" })
        }
        DType::Record { .. } | DType::SubArray { .. } => format!("'{dtype}'"),
    }
}

/// Writes an element as it stands in an array.
pub(crate) fn write(out: &mut String, element: &Element<'_>, limit: usize) {
    match element {
        Element::Bool(value) => out.push_str(if *value { "True" } else { "False" }),
        Element::Int(value) | Element::Ticks(value) => push(out, format_args!("{value}")),
        Element::UInt(value) => push(out, format_args!("{value}")),
        Element::Single(value) => out.push_str(&crate::numbers::single(*value)),
        Element::Float(value) => out.push_str(&crate::numbers::float(*value)),
        Element::Complex(re, im) => out.push_str(&crate::numbers::complex(*re, *im)),
        Element::Text(text) => write_text(out, text.as_bytes(), limit),
        Element::Bytes(bytes) | Element::Raw(bytes) => write_bytes(out, bytes, limit),
    }
}

/// The shape of an array as its owner sees it, and how far apart in its data, counted in elements,
/// neighbours along each axis are.
pub(crate) fn layout(shape: &[u64], order: &Order) -> (Vec<u64>, Vec<u64>) {
    let mut strides = vec![0; shape.len()];
    let mut next = 1_u64;
    let mut stride = |axis: usize| {
        strides[axis] = next;
        next = next.saturating_mul(shape[axis].max(1));
    };
    match order {
        Order::Fortran => (0..shape.len()).for_each(&mut stride),
        Order::C | Order::Transposed(_) => (0..shape.len()).rev().for_each(&mut stride),
    }
    match order {
        Order::Transposed(axes) => {
            let pick = |list: &[u64]| axes.iter().map(|axis| list[usize::from(*axis)]).collect();
            (pick(shape), pick(&strides))
        }
        Order::C | Order::Fortran => (shape.to_vec(), strides),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_floats_are_exact() {
        for (bits, value) in [
            (0x3c00, 1.0),
            (0xc000, -2.0),
            (0x7bff, 65504.0),
            (0x0001, 2_f32.powi(-24)),
            (0x7c00, f32::INFINITY),
        ] {
            assert_eq!(half(bits).to_bits(), value.to_bits());
        }
        assert!(half(0x7e00).is_nan());
    }

    #[test]
    fn layouts_follow_the_order() {
        assert_eq!(layout(&[2, 3], &Order::C), (vec![2, 3], vec![3, 1]));
        assert_eq!(layout(&[2, 3], &Order::Fortran), (vec![2, 3], vec![1, 2]));
        let transposed = Order::Transposed(vec![1, 0].into());
        assert_eq!(layout(&[2, 3], &transposed), (vec![3, 2], vec![1, 3]));
    }
}
