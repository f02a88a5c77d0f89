//! Which global names mean something here.

use std::collections::HashMap;

use super::arena::PathFlavour;

/// A class or function of the standard library or numpy that this decoder knows how to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    Complex,
    Range,
    Slice,
    Getattr,
    Date,
    Time,
    DateTime,
    TimeDelta,
    TimeZone,
    Decimal,
    Fraction,
    Uuid,
    PurePath(PathFlavour),
    OrderedDict,
    Counter,
    DefaultDict,
    Deque,
    NumpyArray,
    NumpyDType,
    NumpyFromBuffer,
    NumpyReconstruct,
    NumpyScalar,
}

/// What a global name stands for.
pub(super) enum Known {
    Class(Class),
    Ellipsis,
    NotImplemented,
}

impl Class {
    /// Its name, for error messages.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Complex => "builtins.complex",
            Self::Range => "builtins.range",
            Self::Slice => "builtins.slice",
            Self::Getattr => "builtins.getattr",
            Self::Date => "datetime.date",
            Self::Time => "datetime.time",
            Self::DateTime => "datetime.datetime",
            Self::TimeDelta => "datetime.timedelta",
            Self::TimeZone => "datetime.timezone",
            Self::Decimal => "decimal.Decimal",
            Self::Fraction => "fractions.Fraction",
            Self::Uuid => "uuid.UUID",
            Self::PurePath(PathFlavour::Posix) => "pathlib.PurePosixPath",
            Self::PurePath(PathFlavour::Windows) => "pathlib.PureWindowsPath",
            Self::OrderedDict => "collections.OrderedDict",
            Self::Counter => "collections.Counter",
            Self::DefaultDict => "collections.defaultdict",
            Self::Deque => "collections.deque",
            Self::NumpyArray => "numpy.ndarray",
            Self::NumpyDType => "numpy.dtype",
            Self::NumpyFromBuffer => "numpy._core.numeric._frombuffer",
            Self::NumpyReconstruct => "numpy._core.multiarray._reconstruct",
            Self::NumpyScalar => "numpy._core.multiarray.scalar",
        }
    }
}

/// Looks a name up in the fixed list. `numpy.core` is numpy 1's name of `numpy._core`, and
/// `pathlib._local` is where CPython 3.13 alone says its path classes are.
pub(super) fn known(module: &[u8], qualname: &[u8]) -> Option<Known> {
    let class = match module {
        b"builtins" => match qualname {
            b"complex" => Class::Complex,
            b"range" => Class::Range,
            b"slice" => Class::Slice,
            b"getattr" => Class::Getattr,
            b"Ellipsis" => return Some(Known::Ellipsis),
            b"NotImplemented" => return Some(Known::NotImplemented),
            _ => return None,
        },
        b"datetime" => match qualname {
            b"date" => Class::Date,
            b"time" => Class::Time,
            b"datetime" => Class::DateTime,
            b"timedelta" => Class::TimeDelta,
            b"timezone" => Class::TimeZone,
            _ => return None,
        },
        b"collections" => match qualname {
            b"OrderedDict" => Class::OrderedDict,
            b"Counter" => Class::Counter,
            b"defaultdict" => Class::DefaultDict,
            b"deque" => Class::Deque,
            _ => return None,
        },
        b"pathlib" | b"pathlib._local" => match qualname {
            b"PurePosixPath" => Class::PurePath(PathFlavour::Posix),
            b"PureWindowsPath" => Class::PurePath(PathFlavour::Windows),
            _ => return None,
        },
        b"decimal" if qualname == b"Decimal" => Class::Decimal,
        b"fractions" if qualname == b"Fraction" => Class::Fraction,
        b"uuid" if qualname == b"UUID" => Class::Uuid,
        b"numpy" => match qualname {
            b"ndarray" => Class::NumpyArray,
            b"dtype" => Class::NumpyDType,
            _ => return None,
        },
        b"numpy._core.multiarray" | b"numpy.core.multiarray" => match qualname {
            b"_reconstruct" => Class::NumpyReconstruct,
            b"scalar" => Class::NumpyScalar,
            _ => return None,
        },
        b"numpy._core.numeric" | b"numpy.core.numeric" if qualname == b"_frombuffer" => {
            Class::NumpyFromBuffer
        }
        _ => return None,
    };
    Some(Known::Class(class))
}

/// Names a class in the [`TrustedNames`] that the message was decoded with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClassIndex(pub(super) u32);

impl ClassIndex {
    /// Its position: the order in which the class was registered.
    #[must_use]
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// The name of a class that the host registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustedName {
    /// `cls.__module__`.
    pub module: String,
    /// `cls.__qualname__`.
    pub qualname: String,
}

/// `__qualname__` to index.
type IndexByName = HashMap<Box<[u8]>, u32>;

/// The classes of which a guest may send instances.
///
/// Registering a class means: its `__hash__` and `__eq__` may be run in the host on instances whose
/// fields the guest chose. A host that rebuilds them as the Python face does runs nothing else of
/// the class. Names in the decoder's own list
/// (`datetime.datetime` and so on) keep their meaning and cannot be overridden.
#[derive(Clone, Debug, Default)]
pub struct TrustedNames {
    names: Vec<TrustedName>,
    by_module: HashMap<Box<[u8]>, IndexByName>,
}

impl TrustedNames {
    /// Registers a class; the same name twice gives the same index.
    pub fn insert(&mut self, module: impl Into<String>, qualname: impl Into<String>) -> ClassIndex {
        let (module, qualname) = (module.into(), qualname.into());
        let next = self.names.len() as u32;
        let index = *self
            .by_module
            .entry(module.as_bytes().into())
            .or_default()
            .entry(qualname.as_bytes().into())
            .or_insert(next);
        if index == next {
            self.names.push(TrustedName { module, qualname });
        }
        ClassIndex(index)
    }

    /// The name registered under `index`, or `None` if it is of another set.
    #[must_use]
    pub fn get(&self, index: ClassIndex) -> Option<&TrustedName> {
        self.names.get(index.index())
    }

    /// All names, in the order of their indices.
    #[must_use]
    pub fn names(&self) -> &[TrustedName] {
        &self.names
    }

    pub(super) fn find(&self, module: &[u8], qualname: &[u8]) -> Option<u32> {
        self.by_module.get(module)?.get(qualname).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_by_both_parts() {
        let mut trusted = TrustedNames::default();
        let point = trusted.insert("shapes", "Point");
        assert_eq!(trusted.insert("shapes", "Point"), point);
        let line = trusted.insert("shapes", "Outer.Line");
        assert_eq!(line.index(), 1);
        assert_eq!(trusted.find(b"shapes", b"Outer.Line"), Some(1));
        assert_eq!(trusted.find(b"shapes.Outer", b"Line"), None);
        assert_eq!(trusted.get(point).map(|name| name.qualname.as_str()), Some("Point"));
    }
}
