//! Numbers as Python writes them.

use pyisolate_supervisor::abi::pickle::BigInt;

use crate::text::push;

/// Past this many digits CPython refuses to write an `int` in decimal, since the time grows with
/// their square; such a number is written in hexadecimal.
const DECIMAL_DIGITS_MAX: usize = 4300;

/// `repr` of a `float`: the fewest digits that read back as the same number.
pub(crate) fn float(value: f64) -> String {
    python(value.is_finite(), &format!("{value}"), &format!("{value:e}"))
}

/// `str` of a 32-bit `float`, likewise.
pub(crate) fn single(value: f32) -> String {
    python(value.is_finite(), &format!("{value}"), &format!("{value:e}"))
}

/// Python's choice between Rust's two ways to write a number.
fn python(is_finite: bool, plain: &str, scientific: &str) -> String {
    if !is_finite {
        return plain.to_ascii_lowercase();
    }
    let (digits, exponent) = scientific.split_once('e').unwrap_or((scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if !(-4..16).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{digits}e{sign}{:02}", exponent.unsigned_abs());
    }
    if plain.contains('.') { plain.to_owned() } else { format!("{plain}.0") }
}

/// `repr` of a `complex`.
pub(crate) fn complex(re: f64, im: f64) -> String {
    let part = |value: f64| {
        let text = float(value);
        text.strip_suffix(".0").map_or_else(|| text.clone(), str::to_owned)
    };
    let imaginary = part(im);
    if re == 0.0 && re.is_sign_positive() {
        return format!("{imaginary}j");
    }
    let plus = if imaginary.starts_with('-') { "" } else { "+" };
    format!("({}{plus}{imaginary}j)", part(re))
}

/// A big integer in decimal, or in hexadecimal where Python would not write it in decimal.
pub(crate) fn big(value: BigInt<'_>) -> String {
    let bytes = value.to_le_bytes();
    let is_negative = bytes.last().is_some_and(|top| top & 0x80 != 0);
    let mut limbs = magnitude(bytes, is_negative);
    let mut text = String::new();
    if is_negative {
        text.push('-');
    }
    // A decimal digit takes 3.32 bits.
    if limbs.len() * 32 > DECIMAL_DIGITS_MAX * 10 / 3 {
        text.push_str("0x");
        for (index, limb) in limbs.iter().rev().enumerate() {
            let width = if index == 0 { 1 } else { 8 };
            push(&mut text, format_args!("{limb:0width$x}"));
        }
        return text;
    }
    let mut groups = Vec::new();
    while !limbs.is_empty() {
        groups.push(divide(&mut limbs, 1_000_000_000));
    }
    for (index, group) in groups.iter().rev().enumerate() {
        let width = if index == 0 { 1 } else { 9 };
        push(&mut text, format_args!("{group:0width$}"));
    }
    text
}

/// The absolute value of a two's complement number, lowest limb first, without zeros on top.
fn magnitude(bytes: &[u8], is_negative: bool) -> Vec<u32> {
    let sign = if is_negative { 0xff } else { 0 };
    let mut limbs: Vec<u32> = bytes
        .chunks(4)
        .map(|chunk| {
            let mut limb = [sign; 4];
            limb[..chunk.len()].copy_from_slice(chunk);
            u32::from_le_bytes(limb)
        })
        .collect();
    if is_negative {
        let mut carry = true;
        for limb in &mut limbs {
            (*limb, carry) = (!*limb).overflowing_add(u32::from(carry));
        }
        if carry {
            limbs.push(1);
        }
    }
    trim(&mut limbs);
    limbs
}

fn trim(limbs: &mut Vec<u32>) {
    while limbs.last() == Some(&0) {
        limbs.pop();
    }
}

/// Divides in place; returns the remainder.
fn divide(limbs: &mut Vec<u32>, by: u32) -> u32 {
    let mut rest = 0_u64;
    for limb in limbs.iter_mut().rev() {
        let value = rest << 32 | u64::from(*limb);
        // The quotient fits: the rest is below the divisor.
        *limb = u32::try_from(value / u64::from(by)).unwrap_or(u32::MAX);
        rest = value % u64::from(by);
    }
    trim(limbs);
    u32::try_from(rest).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use pyisolate_supervisor::abi::pickle::{Caps, decode};
    use pyisolate_supervisor::{Node, TrustedNames, Value};

    #[test]
    fn floats_are_written_as_python_does() {
        for (value, text) in [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (1.0, "1.0"),
            (0.1, "0.1"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (1.5e300, "1.5e+300"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (1.25e-7, "1.25e-07"),
            (f64::INFINITY, "inf"),
            (f64::NEG_INFINITY, "-inf"),
            (f64::NAN, "nan"),
        ] {
            assert_eq!(float(value), text);
        }
        assert_eq!(single(0.1), "0.1");
        assert_eq!(complex(1.0, -2.5), "(1-2.5j)");
        assert_eq!(complex(0.0, 2.0), "2j");
    }

    #[test]
    fn big_integers_are_exact() {
        for value in
            [i128::MAX, i128::MIN, 1 << 64, -(1 << 64), i128::from(i64::MIN) - 1, 10_i128.pow(27)]
        {
            assert_eq!(written(value.to_le_bytes().to_vec()), value.to_string());
        }
        let mut huge = vec![0; 4000];
        huge.push(1);
        assert_eq!(written(huge), format!("0x1{}", "0".repeat(8000)));
    }

    fn written(bytes: Vec<u8>) -> String {
        let pickle = Value::BigInt(bytes).to_pickle();
        let message = decode(pickle, &[], &TrustedNames::default(), &Caps::default()).unwrap();
        let Node::BigInt(value) = message.node(message.root()) else { panic!("no big integer") };
        big(value)
    }
}
