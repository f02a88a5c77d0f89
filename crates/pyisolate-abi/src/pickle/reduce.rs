//! REDUCE, NEWOBJ and NEWOBJ_EX: what a known class makes of its arguments.

use super::arena::{DictKind, NodeId, PathFlavour, Run, SafeUuid, Slot};
use super::caps::cost;
use super::class_name::ClassName;
use super::classes::Class;
use super::error::DecodeError;
use super::machine::Machine;
use super::{number, temporal};

/// How a registered class makes the instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Construction {
    /// `cls(*args)`, as enum members and classes with their own `__reduce__` ask for.
    Call,
    /// `cls.__new__(cls, *args, **kwargs)`, the usual way.
    New,
}

/// An instance of a registered class.
#[derive(Clone, Copy, Debug)]
pub(super) struct ObjectParts {
    pub(super) class: u32,
    pub(super) construction: Construction,
    /// A tuple.
    pub(super) args: NodeId,
    /// A dict.
    pub(super) kwargs: Option<NodeId>,
    pub(super) state: Option<NodeId>,
}

/// Largest numerator, denominator or bound of a range, in bytes: 2048 bits.
///
/// `Fraction(n, d)` divides by the greatest common divisor, in quadratic time. At this size that is
/// about 10 µs, and what each is charged keeps a message to some 700,000 of them.
const FRACTION_BYTES: usize = 256;

impl Machine<'_> {
    /// Applies `callable` to the tuple `args`.
    pub(super) fn reduce(&mut self, callable: NodeId, args: NodeId) -> Result<NodeId, DecodeError> {
        let Slot::Tuple(run) = self.arena.slot(args) else {
            return Err(self.wrong_type("a tuple of arguments", &self.arena.slot(args)));
        };
        match self.arena.slot(callable) {
            Slot::Class(class) => self.call(class, args, run),
            Slot::Trusted(class) => self.object(ObjectParts {
                class,
                construction: Construction::Call,
                args,
                kwargs: None,
                state: None,
            }),
            found => Err(self.not_a_class(found)),
        }
    }

    /// Makes an instance of `class` without calling its initialiser.
    pub(super) fn new_object(
        &mut self,
        class: NodeId,
        args: NodeId,
        kwargs: Option<NodeId>,
    ) -> Result<NodeId, DecodeError> {
        let Slot::Tuple(run) = self.arena.slot(args) else {
            return Err(self.wrong_type("a tuple of arguments", &self.arena.slot(args)));
        };
        match self.arena.slot(class) {
            Slot::Class(Class::Uuid) if run.len() == 0 && kwargs.is_none() => {
                self.arena.push(Slot::UnbuiltUuid, cost::OBJECT)
            }
            Slot::Class(class) => Err(self.malformed(class, "the arguments it writes itself")),
            Slot::Trusted(class) => {
                if let Some(kwargs) = kwargs {
                    self.check_kwargs(kwargs)?;
                }
                let construction = Construction::New;
                self.object(ObjectParts { class, construction, args, kwargs, state: None })
            }
            found => Err(self.not_a_class(found)),
        }
    }

    fn object(&mut self, parts: ObjectParts) -> Result<NodeId, DecodeError> {
        // One object a node at most, so the index fits.
        let index = self.arena.objects.len() as u32;
        let id = self.arena.push(Slot::Object(index), cost::OBJECT)?;
        self.arena.objects.push(parts);
        Ok(id)
    }

    fn check_kwargs(&self, kwargs: NodeId) -> Result<(), DecodeError> {
        let found = self.arena.slot(kwargs);
        let Slot::Dict(DictKind::Plain, run) = found else {
            return Err(self.wrong_type("a dict of keyword arguments", &found));
        };
        let (entries, _) = self.arena.run(run).as_chunks::<2>();
        match entries
            .iter()
            .map(|[key, _]| self.arena.slot(*key))
            .find(|key| !matches!(key, Slot::Text(_)))
        {
            Some(key) => Err(self.wrong_type("a keyword", &key)),
            None => Ok(()),
        }
    }

    /// The error for something that should have been a class that crosses.
    fn not_a_class(&self, found: Slot) -> DecodeError {
        match self.global_name(found) {
            Some(name) => DecodeError::RefusedClass { name },
            None => self.wrong_type("a class", &found),
        }
    }

    /// The name of a class or function; `None` for a value.
    pub(super) fn global_name(&self, slot: Slot) -> Option<ClassName> {
        self.arena.global_name(slot, self.input.pickle(), self.trusted)
    }

    /// The class of an instance of a registered class; `None` for anything else.
    pub(super) fn object_name(&self, slot: Slot) -> Option<ClassName> {
        let Slot::Object(index) = slot else { return None };
        self.global_name(Slot::Trusted(self.arena.objects[index as usize].class))
    }

    fn call(&mut self, class: Class, args: NodeId, run: Run) -> Result<NodeId, DecodeError> {
        let found = self.arena.run(run);
        match (class, found) {
            (Class::Complex, &[re, im]) => self.complex(re, im),
            (Class::Range, &[start, stop, step]) => self.range(start, stop, step),
            (Class::Slice, &[start, stop, step]) => {
                self.arena.push(Slot::Slice { start, stop, step }, cost::OBJECT)
            }
            (Class::Getattr, &[owner, _]) => self.arena.push(Slot::Attribute { owner }, 0),
            (Class::Date, &[state]) => self.date(state),
            (Class::Time, &[state]) => self.time(state, None),
            (Class::Time, &[state, zone]) => self.time(state, Some(zone)),
            (Class::DateTime, &[state]) => self.datetime(state, None),
            (Class::DateTime, &[state, zone]) => self.datetime(state, Some(zone)),
            (Class::TimeDelta, &[days, seconds, micro]) => self.timedelta([days, seconds, micro]),
            (Class::TimeZone, &[offset]) => self.timezone(offset, None),
            (Class::TimeZone, &[offset, name]) => self.timezone(offset, Some(name)),
            (Class::Decimal, &[text]) => self.decimal(text),
            (Class::Fraction, &[numerator, denominator]) => self.fraction(numerator, denominator),
            (Class::PurePath(flavour), _) => self.path(flavour, args, run),
            (Class::OrderedDict, &[]) => self.empty_dict(DictKind::Ordered),
            (Class::DefaultDict, &[]) => self.empty_dict(DictKind::Default),
            (Class::DefaultDict, &[factory]) => self.default_dict(factory),
            (Class::Counter, &[counts]) => self.counter(counts),
            (Class::Deque, &[]) => self.deque(None),
            (Class::Deque, &[items, max_len]) => self.bounded_deque(items, max_len),
            (Class::NumpyDType, &[name, _align, _copy]) => self.begin_dtype(name),
            (Class::NumpyFromBuffer, &[data, dtype, shape, order]) => {
                self.array_from_buffer(data, dtype, shape, order, None)
            }
            (Class::NumpyFromBuffer, &[data, dtype, shape, order, axes]) => {
                self.array_from_buffer(data, dtype, shape, order, Some(axes))
            }
            (Class::NumpyReconstruct, &[subtype, _shape, _code]) => self.begin_array(subtype),
            (Class::NumpyScalar, &[dtype, data]) => self.numpy_scalar(dtype, data),
            _ => Err(self.malformed(class, "the arguments it writes itself")),
        }
    }

    /// The value of an `int` of at most 8 bytes.
    pub(super) fn int(&self, id: NodeId) -> Option<i64> {
        match self.arena.slot(id) {
            Slot::Int(value) => Some(value),
            _ => None,
        }
    }

    /// The bytes of a `str`.
    pub(super) fn text_bytes(&self, id: NodeId) -> Option<&[u8]> {
        match self.arena.slot(id) {
            Slot::Text(span) => Some(span.of(self.input.pickle())),
            _ => None,
        }
    }

    fn complex(&mut self, re: NodeId, im: NodeId) -> Result<NodeId, DecodeError> {
        match (self.arena.slot(re), self.arena.slot(im)) {
            (Slot::Float(_), Slot::Float(_)) => {
                self.arena.push(Slot::Complex { re, im }, cost::NUMBER)
            }
            _ => Err(self.malformed(Class::Complex, "two floats")),
        }
    }

    fn range(&mut self, start: NodeId, stop: NodeId, step: NodeId) -> Result<NodeId, DecodeError> {
        // CPython computes the length of every range, which divides: many ranges may share a bound.
        for id in [start, stop, step] {
            if let Slot::BigInt(span) = self.arena.slot(id)
                && span.len as usize > FRACTION_BYTES
            {
                let bits = 8 * u64::from(span.len);
                return Err(DecodeError::IntBits { bits, cap: 8 * FRACTION_BYTES });
            }
        }
        let is_int = |id| matches!(self.arena.slot(id), Slot::Int(_) | Slot::BigInt(_));
        if ![start, stop, step].into_iter().all(is_int) || self.int(step) == Some(0) {
            return Err(self.malformed(Class::Range, "three ints, the last not 0"));
        }
        self.arena.push(Slot::Range { start, stop, step }, cost::OBJECT)
    }

    /// The `N` state bytes in `state`, and where they stand in the pickle.
    fn state<const N: usize>(&self, state: NodeId) -> Option<(u32, [u8; N])> {
        let Slot::Bytes(span) = self.arena.slot(state) else { return None };
        let bytes = span.of(self.input.pickle()).try_into().ok()?;
        Some((span.start, bytes))
    }

    fn date(&mut self, state: NodeId) -> Result<NodeId, DecodeError> {
        match self.state(state) {
            Some((at, bytes)) if temporal::date(bytes).is_some() => {
                self.arena.push(Slot::Date(at), cost::OBJECT)
            }
            _ => Err(self.malformed(Class::Date, "the 4 bytes of a valid date")),
        }
    }

    fn time(&mut self, state: NodeId, zone: Option<NodeId>) -> Result<NodeId, DecodeError> {
        self.check_zone(zone)?;
        match self.state(state) {
            Some((at, bytes)) if temporal::time(bytes).is_some() => {
                self.arena.push(Slot::Time { state: at, zone }, cost::OBJECT)
            }
            _ => Err(self.malformed(Class::Time, "the 6 bytes of a valid time")),
        }
    }

    fn datetime(&mut self, state: NodeId, zone: Option<NodeId>) -> Result<NodeId, DecodeError> {
        self.check_zone(zone)?;
        match self.state(state) {
            Some((at, bytes)) if temporal::datetime(bytes).is_some() => {
                self.arena.push(Slot::DateTime { state: at, zone }, cost::OBJECT)
            }
            _ => Err(self.malformed(Class::DateTime, "the 10 bytes of a valid date and time")),
        }
    }

    fn check_zone(&self, zone: Option<NodeId>) -> Result<(), DecodeError> {
        match zone.map(|zone| self.arena.slot(zone)) {
            None | Some(Slot::TimeZone { .. }) => Ok(()),
            Some(found) => match self.object_name(found) {
                Some(name) => Err(DecodeError::RefusedClass { name }),
                None => Err(self.wrong_type("a timezone", &found)),
            },
        }
    }

    fn timedelta(&mut self, parts: [NodeId; 3]) -> Result<NodeId, DecodeError> {
        let delta = match parts.map(|part| self.int(part)) {
            [Some(days), Some(seconds), Some(micro)] => temporal::timedelta(days, seconds, micro),
            _ => None,
        };
        let delta = delta.ok_or_else(|| {
            self.malformed(Class::TimeDelta, "normalised days, seconds and microseconds")
        })?;
        let temporal::TimeDelta { days, seconds, microseconds } = delta;
        self.arena.push(Slot::TimeDelta { days, seconds, microseconds }, cost::OBJECT)
    }

    fn timezone(&mut self, offset: NodeId, name: Option<NodeId>) -> Result<NodeId, DecodeError> {
        let valid = matches!(self.arena.slot(offset), Slot::TimeDelta { days, seconds, microseconds }
            if temporal::is_zone_offset(temporal::TimeDelta { days, seconds, microseconds }));
        if !valid || name.is_some_and(|name| self.text_bytes(name).is_none()) {
            return Err(
                self.malformed(Class::TimeZone, "a timedelta of less than a day and a name")
            );
        }
        self.arena.push(Slot::TimeZone { offset, name }, cost::OBJECT)
    }

    fn decimal(&mut self, text: NodeId) -> Result<NodeId, DecodeError> {
        let len = match self.text_bytes(text) {
            Some(text) if number::is_decimal(text) => text.len(),
            _ => return Err(self.malformed(Class::Decimal, "the text of a decimal number")),
        };
        // A digit is 3.3 bits.
        if len / 3 * 10 > self.caps.int_bits {
            return Err(DecodeError::IntBits {
                bits: (len / 3 * 10) as u64,
                cap: self.caps.int_bits,
            });
        }
        self.arena.push(Slot::Decimal(text), cost::OBJECT + len)
    }

    fn fraction(&mut self, numerator: NodeId, denominator: NodeId) -> Result<NodeId, DecodeError> {
        for part in [numerator, denominator] {
            if let Slot::BigInt(span) = self.arena.slot(part)
                && span.len as usize > FRACTION_BYTES
            {
                return Err(DecodeError::IntBits {
                    bits: u64::from(span.len) * 8,
                    cap: FRACTION_BYTES * 8,
                });
            }
        }
        let is_int = matches!(self.arena.slot(numerator), Slot::Int(_) | Slot::BigInt(_));
        let is_positive = match self.arena.slot(denominator) {
            Slot::Int(value) => value > 0,
            Slot::BigInt(span) => !number::is_negative(span.of(self.input.pickle())),
            _ => false,
        };
        if !is_int || !is_positive {
            return Err(self.malformed(Class::Fraction, "an int and a positive int"));
        }
        let bytes = cost::OBJECT + 2 * FRACTION_BYTES;
        self.arena.push(Slot::Fraction { numerator, denominator }, bytes)
    }

    fn path(
        &mut self,
        flavour: PathFlavour,
        parts: NodeId,
        run: Run,
    ) -> Result<NodeId, DecodeError> {
        // The path joins its parts, so each is paid for again.
        let mut joined = 0;
        for &part in self.arena.run(run) {
            match self.text_bytes(part) {
                Some(text) => joined += text.len() + 1,
                None => return Err(self.malformed(Class::PurePath(flavour), "strings")),
            }
        }
        let bytes = joined.saturating_mul(4).saturating_add(cost::OBJECT);
        self.arena.push(Slot::PurePath { flavour, parts }, bytes)
    }

    fn empty_dict(&mut self, kind: DictKind) -> Result<NodeId, DecodeError> {
        self.arena.push(Slot::Dict(kind, Run::default()), cost::DICT + cost::DICT_SUBCLASS)
    }

    fn default_dict(&mut self, factory: NodeId) -> Result<NodeId, DecodeError> {
        match self.arena.slot(factory) {
            Slot::None => self.empty_dict(DictKind::Default),
            found => Err(match self.global_name(found) {
                Some(name) => DecodeError::RefusedFactory { name },
                None => self.wrong_type("None", &found),
            }),
        }
    }

    fn counter(&mut self, counts: NodeId) -> Result<NodeId, DecodeError> {
        let Slot::Dict(DictKind::Plain, run) = self.arena.slot(counts) else {
            return Err(self.malformed(Class::Counter, "a dict"));
        };
        // A copy of its own: the argument may still grow.
        let bytes = cost::DICT + cost::DICT_SUBCLASS + run.len() / 2 * cost::ENTRY;
        self.arena.charge(bytes)?;
        let copy = self.arena.copy_run(run);
        self.arena.push(Slot::Dict(DictKind::Counter, copy), 0)
    }

    fn bounded_deque(&mut self, items: NodeId, max_len: NodeId) -> Result<NodeId, DecodeError> {
        match (self.arena.slot(items), self.arena.slot(max_len)) {
            (Slot::Tuple(run), Slot::Int(max)) if run.len() == 0 && max >= 0 => {
                self.deque(Some(max_len))
            }
            _ => Err(self.malformed(Class::Deque, "() and a length")),
        }
    }

    fn deque(&mut self, max_len: Option<NodeId>) -> Result<NodeId, DecodeError> {
        let items = self.arena.push(Slot::List(Run::default()), 0)?;
        self.arena.push(Slot::Deque { items, max_len }, cost::DEQUE)
    }

    /// `uuid.SafeUUID` from its value.
    pub(super) fn safe_uuid(&self, id: NodeId) -> Option<SafeUuid> {
        match self.arena.slot(id) {
            Slot::None => Some(SafeUuid::Unknown),
            Slot::Int(0) => Some(SafeUuid::Safe),
            Slot::Int(-1) => Some(SafeUuid::Unsafe),
            _ => None,
        }
    }
}
