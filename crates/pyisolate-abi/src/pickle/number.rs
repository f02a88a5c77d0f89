//! Integers of any size and the syntax of decimals.

/// How many of the little-endian two's complement `bytes` carry its value; the rest repeat the sign.
pub(super) fn significant(bytes: &[u8]) -> usize {
    let mut len = bytes.len();
    while let [.., below, top] = &bytes[..len] {
        let sign = if below & 0x80 == 0 { 0 } else { 0xff };
        if *top != sign {
            break;
        }
        len -= 1;
    }
    if bytes[..len] == [0] { 0 } else { len }
}

/// The value, if it takes at most eight bytes.
pub(super) fn small(bytes: &[u8]) -> Option<i64> {
    let sign = if is_negative(bytes) { 0xff } else { 0 };
    let mut wide = [sign; 8];
    wide.get_mut(..bytes.len())?.copy_from_slice(bytes);
    Some(i64::from_le_bytes(wide))
}

pub(super) fn is_negative(bytes: &[u8]) -> bool {
    bytes.last().is_some_and(|top| top & 0x80 != 0)
}

/// The value of an integer without superfluous bytes, if it is in `0..2**128`.
pub(super) fn to_u128(bytes: &[u8]) -> Option<u128> {
    if is_negative(bytes) {
        return None;
    }
    let mut wide = [0; 17];
    wide.get_mut(..bytes.len())?.copy_from_slice(bytes);
    match wide {
        [low @ .., 0] => Some(u128::from_le_bytes(low)),
        _ => None,
    }
}

/// Whether `text` is what `str(Decimal)` gives, so that `Decimal(text)` succeeds.
pub(super) fn is_decimal(text: &[u8]) -> bool {
    let text = text.strip_prefix(b"-").unwrap_or(text);
    if text == b"Infinity" {
        return true;
    }
    let signalling = text.strip_prefix(b"s").unwrap_or(text);
    if let Some(payload) = signalling.strip_prefix(b"NaN") {
        return payload.iter().all(u8::is_ascii_digit);
    }
    let (coefficient, exponent) = match text.iter().position(|&c| c == b'E') {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    };
    is_coefficient(coefficient) && exponent.is_none_or(is_exponent)
}

/// Whether it is a signalling NaN, which has no hash.
pub(super) fn is_signalling(text: &[u8]) -> bool {
    text.strip_prefix(b"-").unwrap_or(text).starts_with(b"s")
}

fn is_coefficient(text: &[u8]) -> bool {
    let mut digits = 0;
    let mut points = 0;
    for c in text {
        match c {
            b'0'..=b'9' => digits += 1,
            b'.' => points += 1,
            _ => return false,
        }
    }
    digits > 0 && points <= 1
}

/// `decimal.MAX_EMAX` has 18 digits; beyond it the constructor raises.
fn is_exponent(text: &[u8]) -> bool {
    let digits = text.strip_prefix(b"+").or_else(|| text.strip_prefix(b"-")).unwrap_or(text);
    matches!(digits.len(), 1..=17) && digits.iter().all(u8::is_ascii_digit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sign_bytes_are_not_significant() {
        assert_eq!(significant(&[]), 0);
        assert_eq!(significant(&[0, 0, 0]), 0);
        assert_eq!(significant(&[0xff, 0xff]), 1);
        assert_eq!(significant(&[0x80, 0]), 2);
        assert_eq!(significant(&[0x7f, 0]), 1);
        assert_eq!(significant(&[0x7f, 0xff]), 2);
    }

    #[test]
    fn small_integers_keep_their_sign() {
        assert_eq!(small(&[]), Some(0));
        assert_eq!(small(&[0xff]), Some(-1));
        assert_eq!(small(&[0xff, 0]), Some(255));
        assert_eq!(small(&i64::MIN.to_le_bytes()), Some(i64::MIN));
        assert_eq!(small(&[0; 9]), None);
    }

    #[test]
    fn only_what_fits_is_a_u128() {
        assert_eq!(to_u128(&[]), Some(0));
        assert_eq!(to_u128(&[5]), Some(5));
        assert_eq!(to_u128(&[0xff]), None);
        let mut top = [0xff; 17];
        top[16] = 0;
        assert_eq!(to_u128(&top), Some(u128::MAX));
        top[16] = 1;
        assert_eq!(to_u128(&top), None);
        assert_eq!(to_u128(&[0; 18]), None);
    }

    #[test]
    fn decimals_are_told_from_other_text() {
        for text in
            ["0", "-0", "1.50", "1E+3", "-1.2E-10", "Infinity", "-Infinity", "NaN", "sNaN12"]
        {
            assert!(is_decimal(text.as_bytes()), "{text}");
        }
        for text in [
            "",
            "-",
            ".",
            "1.2.3",
            "1e3",
            "1E",
            "1E+1234567890123456789",
            "inf",
            "NaNx",
            "1_0",
            " 1",
        ] {
            assert!(!is_decimal(text.as_bytes()), "{text}");
        }
    }
}
