//! numpy dtypes.

use std::fmt;

use super::arena::NodeId;

/// Byte order of one element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ByteOrder {
    /// `<`
    Little,
    /// `>`
    Big,
    /// `|`: single bytes and raw data.
    NotApplicable,
}

/// What one element of a simple dtype is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScalarKind {
    /// `b`
    Bool,
    /// `i`
    Int,
    /// `u`
    UInt,
    /// `f`; 16 bytes is the platform's `long double`.
    Float,
    /// `c`
    Complex,
    /// `S`: bytes padded with NUL.
    Bytes,
    /// `U`: UCS-4 padded with NUL.
    Text,
    /// `V`: raw bytes.
    Void,
}

impl ScalarKind {
    fn code(self) -> char {
        match self {
            Self::Bool => 'b',
            Self::Int => 'i',
            Self::UInt => 'u',
            Self::Float => 'f',
            Self::Complex => 'c',
            Self::Bytes => 'S',
            Self::Text => 'U',
            Self::Void => 'V',
        }
    }
}

/// Unit of a `datetime64` or `timedelta64`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the documentation")]
pub enum TimeUnit {
    Generic,
    Year,
    Month,
    Week,
    Day,
    Hour,
    Minute,
    Second,
    Millisecond,
    Microsecond,
    Nanosecond,
    Picosecond,
    Femtosecond,
    Attosecond,
}

impl TimeUnit {
    const ALL: [(Self, &'static str); 14] = [
        (Self::Generic, "generic"),
        (Self::Year, "Y"),
        (Self::Month, "M"),
        (Self::Week, "W"),
        (Self::Day, "D"),
        (Self::Hour, "h"),
        (Self::Minute, "m"),
        (Self::Second, "s"),
        (Self::Millisecond, "ms"),
        (Self::Microsecond, "us"),
        (Self::Nanosecond, "ns"),
        (Self::Picosecond, "ps"),
        (Self::Femtosecond, "fs"),
        (Self::Attosecond, "as"),
    ];

    pub(super) fn parse(code: &[u8]) -> Option<Self> {
        Self::ALL.iter().find(|(_, name)| name.as_bytes() == code).map(|(unit, _)| *unit)
    }

    /// numpy's code for it, such as `ns`.
    #[must_use]
    pub fn code(self) -> &'static str {
        Self::ALL[self as usize].1
    }
}

/// One field of a record dtype.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Its name, a `str`. No two fields of a record have the same.
    pub name: NodeId,
    /// Its dtype.
    pub dtype: NodeId,
    /// Bytes from the start of the record; the field ends within the record. Fields may overlap.
    pub offset: u32,
}

/// A `numpy.dtype` without Python objects.
///
/// Its `Display` is the string that `numpy.dtype(...)` takes, except for records and subarrays,
/// which numpy spells with tuples.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DType {
    /// A simple type.
    Scalar {
        /// Its kind.
        kind: ScalarKind,
        /// Its byte order.
        order: ByteOrder,
        /// Bytes of one element.
        itemsize: u32,
    },
    /// `datetime64` or `timedelta64`, 8 bytes an element.
    Time {
        /// Whether it is a `timedelta64`.
        is_delta: bool,
        /// Its byte order.
        order: ByteOrder,
        /// Its unit.
        unit: TimeUnit,
        /// How many units a tick is; at least 1.
        count: u32,
    },
    /// A structured type.
    Record {
        /// Its fields, in order.
        fields: Box<[Field]>,
        /// Bytes of one element.
        itemsize: u32,
        /// Whether it was made with `align=True`.
        aligned: bool,
    },
    /// A small array of fixed shape as one element; occurs as the dtype of a field.
    SubArray {
        /// The dtype of its elements.
        element: NodeId,
        /// Its shape.
        shape: Box<[u64]>,
        /// Bytes of one element.
        itemsize: u32,
    },
}

impl DType {
    /// Bytes of one element.
    #[must_use]
    pub fn itemsize(&self) -> u32 {
        match self {
            Self::Scalar { itemsize, .. }
            | Self::Record { itemsize, .. }
            | Self::SubArray { itemsize, .. } => *itemsize,
            Self::Time { .. } => 8,
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = |order: &ByteOrder| match order {
            ByteOrder::Little => '<',
            ByteOrder::Big => '>',
            ByteOrder::NotApplicable => '|',
        };
        match self {
            Self::Scalar { kind, order, itemsize } => {
                let count = if *kind == ScalarKind::Text { itemsize / 4 } else { *itemsize };
                write!(f, "{}{}{count}", sign(order), kind.code())
            }
            Self::Time { is_delta, order, unit, count } => {
                write!(f, "{}{}8", sign(order), if *is_delta { 'm' } else { 'M' })?;
                match (unit, count) {
                    (TimeUnit::Generic, _) => Ok(()),
                    (unit, 1) => write!(f, "[{}]", unit.code()),
                    (unit, count) => write!(f, "[{count}{}]", unit.code()),
                }
            }
            Self::Record { itemsize, .. } | Self::SubArray { itemsize, .. } => {
                write!(f, "|V{itemsize}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_in_the_order_of_the_enum() {
        for (unit, code) in TimeUnit::ALL {
            assert_eq!(unit.code(), code);
            assert_eq!(TimeUnit::parse(code.as_bytes()), Some(unit));
        }
    }
}
