//! Which modules the guest's own code may import.

use std::collections::BTreeSet;

use thiserror::Error;

/// The modules that guest code may name in an `import` or a `call`. A name allows itself and what
/// lies below it; an empty set allows nothing. What an allowed module imports for itself is its
/// own business. This resolves code and is no wall: the jail holds whatever is imported.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Imports(BTreeSet<String>);

/// Why a text is no module name.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("allowed_imports names {0:?}, which is not a dotted module name")]
pub struct ImportError(String);

impl Imports {
    /// Checks the names and keeps them.
    ///
    /// # Errors
    /// [`ImportError`] for a name that is not dotted identifiers.
    pub fn new<I>(names: I) -> Result<Self, ImportError>
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        let check = |name: String| {
            if is_dotted_name(&name) { Ok(name) } else { Err(ImportError(name)) }
        };
        names.into_iter().map(|name| check(name.into())).collect::<Result<_, _>>().map(Self)
    }

    /// Whether guest code may import `module`.
    #[must_use]
    pub fn allows(&self, module: &str) -> bool {
        let mut name = module;
        loop {
            if self.0.contains(name) {
                return true;
            }
            match name.rsplit_once('.') {
                Some((parent, _)) => name = parent,
                None => return false,
            }
        }
    }

    /// The names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

/// Whether it is identifiers with dots between them.
pub(crate) fn is_dotted_name(name: &str) -> bool {
    let is_identifier = |part: &str| {
        let mut chars = part.chars();
        chars.next().is_some_and(|first| first.is_alphabetic() || first == '_')
            && chars.all(|rest| rest.is_alphanumeric() || rest == '_')
    };
    name.len() <= 1024 && name.split('.').all(is_identifier)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_set_allows_nothing() {
        assert!(!Imports::default().allows("math"));
    }

    #[test]
    fn a_name_allows_itself_and_what_is_below() {
        let imports = Imports::new(["numpy", "os.path"]).unwrap();
        for good in ["numpy", "numpy.linalg", "os.path"] {
            assert!(imports.allows(good), "{good}");
        }
        for bad in ["numpyx", "os", "os.pathx", "", "."] {
            assert!(!imports.allows(bad), "{bad}");
        }
    }

    #[test]
    fn patterns_are_not_names() {
        for bad in ["*", "a.*", "", "a..b", ".a", "a b", "1a"] {
            assert!(Imports::new([bad]).is_err(), "{bad}");
        }
    }
}
