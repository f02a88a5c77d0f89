//! Python's hashes of numbers and of what is hashed through numbers, as CPython computes them.

use std::hash::{DefaultHasher, Hash, Hasher as _};

use super::arena::{Arena, NodeId, Slot};
use super::dtype::{ByteOrder, DType, ScalarKind};
use super::{number, temporal};

/// CPython's modulus for the hashes of numbers, a Mersenne prime.
pub(super) const MODULUS: u64 = (1 << MODULUS_BITS) - 1;
const MODULUS_BITS: u32 = 61;

/// Computes hashes as CPython does. Recurses over tuples, whose depth has been checked.
pub(super) struct PythonHash<'a> {
    arena: &'a Arena,
    pickle: &'a [u8],
}

impl<'a> PythonHash<'a> {
    pub(super) fn new(arena: &'a Arena, pickle: &'a [u8]) -> Self {
        Self { arena, pickle }
    }

    /// `None` if the hash depends on more than is known here.
    pub(super) fn hash(&self, id: NodeId) -> Option<u64> {
        match self.arena.slot(id) {
            Slot::Int(value) => Some(hash_int(value)),
            Slot::BigInt(span) => Some(hash_big(span.of(self.pickle))),
            Slot::Bool(value) => Some(value.into()),
            Slot::Float(value) => Some(hash_float(value, id)),
            Slot::Uuid { int, .. } => self.hash(int),
            Slot::Tuple(run) => self.hash_tuple(self.arena.run(run)),
            Slot::TimeDelta { days, seconds, microseconds } => {
                let parts = [days.into(), seconds.into(), microseconds.into()];
                Some(combine(parts.map(hash_int)))
            }
            Slot::DateTime { state, zone: Some(zone) } => self.hash_aware(state, zone),
            Slot::NumpyScalar { dtype, data } => self.hash_numpy(dtype, data.of(self.pickle), id),
            Slot::Text(span) | Slot::Bytes(span) => Some(stand_in(span.of(self.pickle))),
            Slot::Date(state) => self.stand_in_state::<4>(state),
            Slot::Time { state, zone: None } => self.stand_in_state::<6>(state),
            Slot::DateTime { state, zone: None } => self.stand_in_state::<10>(state),
            Slot::None => Some(0x6e6f_6e65),
            Slot::Ellipsis => Some(0x2e2e_2e2e),
            Slot::NotImplemented => Some(0x6e6f_7469),
            // Randomised too. Equal ones can be written in many ways, which only matters in a tuple.
            Slot::PurePath { .. } => Some(mixed(id)),
            _ => None,
        }
    }

    fn hash_tuple(&self, items: &[NodeId]) -> Option<u64> {
        let mut lanes = Lanes::default();
        for &item in items {
            if self.has_many_spellings(item) {
                return None;
            }
            lanes.add(self.hash(item)?);
        }
        Some(lanes.finish())
    }

    /// Whether equal values can look different here and so get different stand-ins for one hash.
    fn has_many_spellings(&self, id: NodeId) -> bool {
        match self.arena.slot(id) {
            Slot::PurePath { .. } => true,
            Slot::NumpyScalar { dtype, .. } => match self.arena.slot(dtype) {
                Slot::DType(index) => matches!(
                    self.arena.dtypes[index as usize].dtype,
                    DType::Scalar { kind: ScalarKind::Bytes | ScalarKind::Text, .. }
                ),
                _ => true,
            },
            _ => false,
        }
    }

    /// For a hash over `N` state bytes. The fold, the top bit of one of them, is not hashed.
    fn stand_in_state<const N: usize>(&self, at: u32) -> Option<u64> {
        let state: &[u8; N] = self.pickle[at as usize..].first_chunk()?;
        Some(stand_in(&state.map(|byte| byte & !temporal::FOLD)))
    }

    /// An aware `datetime` is hashed as the `timedelta` since the start of year 1, in UTC.
    fn hash_aware(&self, state: u32, zone: NodeId) -> Option<u64> {
        let Slot::TimeZone { offset, .. } = self.arena.slot(zone) else { return None };
        let Slot::TimeDelta { days, seconds, microseconds } = self.arena.slot(offset) else {
            return None;
        };
        let state = self.pickle[state as usize..].first_chunk()?;
        let temporal::DateTime { date, time } = temporal::datetime(*state)?;
        let clock = [time.hour, time.minute, time.second].map(i64::from);
        let local = (day_number(date) * 86_400 + clock[0] * 3600 + clock[1] * 60 + clock[2])
            * 1_000_000
            + i64::from(time.microsecond);
        let east =
            (i64::from(days) * 86_400 + i64::from(seconds)) * 1_000_000 + i64::from(microseconds);
        let total = local - east;
        let day = 86_400_000_000;
        let in_day = total.rem_euclid(day);
        let parts = [total.div_euclid(day), in_day / 1_000_000, in_day % 1_000_000];
        Some(combine(parts.map(hash_int)))
    }

    fn hash_numpy(&self, dtype: NodeId, data: &[u8], id: NodeId) -> Option<u64> {
        let Slot::DType(index) = self.arena.slot(dtype) else { return None };
        let DType::Scalar { kind, order, .. } = self.arena.dtypes[index as usize].dtype else {
            return None;
        };
        let mut bytes = data.to_vec();
        if order == ByteOrder::Big {
            bytes.reverse();
        }
        match (kind, bytes.as_slice()) {
            (ScalarKind::Bool, &[value]) => Some(value.into()),
            (ScalarKind::Int, bytes) => number::small(bytes).map(hash_int),
            (ScalarKind::UInt, bytes) => bytes
                .iter()
                .rev()
                .try_fold(0u64, |sum, byte| Some(sum << 8 | u64::from(*byte)))
                .map(|n| n % MODULUS),
            (ScalarKind::Float, &[a, b, c, d]) => {
                Some(hash_float(f32::from_le_bytes([a, b, c, d]).into(), id))
            }
            (ScalarKind::Float, bytes) => {
                Some(hash_float(f64::from_le_bytes(bytes.try_into().ok()?), id))
            }
            (ScalarKind::Bytes | ScalarKind::Text, _) => Some(mixed(id)),
            _ => None,
        }
    }
}

/// Stands for a hash that is random in the host: equal for equal bytes, otherwise well mixed.
///
/// The middle of a long string is left out, since the same one may be asked for often.
fn stand_in(bytes: &[u8]) -> u64 {
    const END: usize = 256;
    let head = &bytes[..bytes.len().min(END)];
    let tail = &bytes[bytes.len().saturating_sub(END)..];
    let mut hasher = DefaultHasher::new();
    (bytes.len(), head, tail).hash(&mut hasher);
    // Never `u64::MAX`, which is no hash.
    hasher.finish() >> 1
}

/// Stands for a hash that is random in the host and different for each value.
fn mixed(id: NodeId) -> u64 {
    stand_in(&id.index().to_le_bytes())
}

/// The number's residue with its sign; -1 is CPython's error value and becomes -2.
fn signed(residue: u64, negative: bool) -> u64 {
    let hash = if negative { residue.wrapping_neg() } else { residue };
    if hash == u64::MAX { hash - 1 } else { hash }
}

fn hash_int(value: i64) -> u64 {
    signed(value.unsigned_abs() % MODULUS, value < 0)
}

fn hash_big(bytes: &[u8]) -> u64 {
    let negative = number::is_negative(bytes);
    // The magnitude of a negative number is its complement plus one.
    let flip = if negative { 0xff } else { 0 };
    let residue = bytes.iter().rev().fold(0u64, |residue, byte| {
        (times_power_of_two(residue, 8) + u64::from(byte ^ flip)) % MODULUS
    });
    signed((residue + u64::from(negative)) % MODULUS, negative)
}

fn hash_float(value: f64, id: NodeId) -> u64 {
    if value.is_infinite() {
        return signed(314_159, value < 0.0);
    }
    if value.is_nan() {
        // Hashed by address.
        return mixed(id);
    }
    let bits = value.to_bits();
    let (exponent, fraction) = ((bits >> 52) & 0x7ff, bits & ((1 << 52) - 1));
    // value = mantissa * 2**power, and 2**61 is 1 here.
    let (mantissa, power) = match exponent {
        0 => (fraction, -1074),
        _ => (fraction | 1 << 52, exponent as i32 - 1075),
    };
    let turn = power.rem_euclid(MODULUS_BITS as i32) as u32;
    signed(times_power_of_two(mantissa, turn) % MODULUS, value < 0.0)
}

/// `n * 2**power` modulo `2**61 - 1`, which rotates its 61 bits. `n` is at most the modulus, and
/// `power` below 61.
fn times_power_of_two(n: u64, power: u32) -> u64 {
    (n << power & MODULUS) | n >> (MODULUS_BITS - power)
}

/// Days from the start of year 1, the first being 1, as `date.toordinal` counts them.
fn day_number(date: temporal::Date) -> i64 {
    const BEFORE: [i64; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
    let year = i64::from(date.year);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let years = year - 1;
    let month = usize::from(date.month) - 1;
    years * 365 + years / 4 - years / 100
        + years / 400
        + BEFORE[month]
        + i64::from(leap && month > 1)
        + i64::from(date.day)
}

/// CPython's tuple hash: xxHash with one lane.
struct Lanes {
    sum: u64,
    count: u64,
}

impl Default for Lanes {
    fn default() -> Self {
        Self { sum: Self::PRIME_5, count: 0 }
    }
}

impl Lanes {
    const PRIME_1: u64 = 11_400_714_785_074_694_791;
    const PRIME_2: u64 = 14_029_467_366_897_019_727;
    const PRIME_5: u64 = 2_870_177_450_012_600_261;

    fn add(&mut self, lane: u64) {
        self.sum = self.sum.wrapping_add(lane.wrapping_mul(Self::PRIME_2));
        self.sum = self.sum.rotate_left(31).wrapping_mul(Self::PRIME_1);
        self.count += 1;
    }

    fn finish(self) -> u64 {
        let hash = self.sum.wrapping_add(self.count ^ (Self::PRIME_5 ^ 3_527_539));
        if hash == u64::MAX { 1_546_275_796 } else { hash }
    }
}

fn combine(lanes: [u64; 3]) -> u64 {
    let mut sum = Lanes::default();
    lanes.into_iter().for_each(|lane| sum.add(lane));
    sum.finish()
}

#[cfg(test)]
mod tests {
    use super::super::Caps;
    use super::*;

    #[test]
    fn hashes_are_those_of_cpython() {
        // hash(…) of CPython 3.13 on a 64-bit machine, as signed numbers.
        let signed = |hash: u64| hash as i64;
        let id = super::super::arena::Arena::new(&Caps::default(), 0).push(Slot::None, 0).unwrap();
        assert_eq!(signed(hash_int(-1)), -2);
        assert_eq!(signed(hash_int(i64::MAX)), 3);
        assert_eq!(signed(hash_float(1.5, id)), 1_152_921_504_606_846_977);
        assert_eq!(signed(hash_float(-2.5e-300, id)), -52_920_977_297_143_526);
        assert_eq!(signed(hash_float(f64::INFINITY, id)), 314_159);
        assert_eq!(signed(hash_float(0.0, id)), 0);
        let mut big = [0; 26];
        (big[0], big[1], big[25]) = (0x39, 0x30, 1);
        assert_eq!(signed(hash_big(&big)), 143_417); // 2**200 + 12345
        let mut big = [0xff; 26];
        big[25] = 0xfe;
        assert_eq!(signed(hash_big(&big)), -131_073); // -2**200 - 1
        assert_eq!(signed(combine([1, 2, 3].map(hash_int))), 529_344_067_295_497_451);
        // datetime(2024, 5, 6, 7, 8, 9, 10, tzinfo=timezone(timedelta(hours=-3)))
        let date = temporal::Date { year: 2024, month: 5, day: 6 };
        let parts = [day_number(date), 10 * 3600 + 8 * 60 + 9, 10];
        assert_eq!(signed(combine(parts.map(hash_int))), -7_823_986_473_494_820_007);
        let mut pair = Lanes::default();
        [1, 2].into_iter().for_each(|n| pair.add(hash_int(n)));
        assert_eq!(signed(pair.finish()), -3_550_055_125_485_641_917);
        assert_eq!(signed(Lanes::default().finish()), 5_740_354_900_026_072_187);
    }
}
