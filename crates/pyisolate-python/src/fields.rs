//! An authority's fields, read from a dict of Python objects. Errors name the field.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use pyisolate_supervisor::policy::{CleanPath, PathPattern};
use pyo3::conversion::FromPyObjectOwned;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyMapping};

use crate::errors::value_error;

/// An authority's fields.
pub(crate) struct Fields<'a, 'py>(pub(crate) &'a Bound<'py, PyDict>);

impl<'py> Fields<'_, 'py> {
    pub(crate) fn object(&self, name: &str) -> PyResult<Bound<'py, PyAny>> {
        let missing = || PyTypeError::new_err(format!("{name} is missing"));
        self.0.get_item(name)?.ok_or_else(missing)
    }

    fn wrong(&self, name: &str, kind: &str) -> PyErr {
        let given = self.object(name).and_then(|value| value.repr()?.extract::<String>());
        PyTypeError::new_err(format!("{name} is {kind}, not {}", given.unwrap_or_default()))
    }

    pub(crate) fn get<T: FromPyObjectOwned<'py>>(&self, name: &str, kind: &str) -> PyResult<T> {
        self.object(name)?.extract::<T>().map_err(|_| self.wrong(name, kind))
    }

    pub(crate) fn text(&self, name: &str) -> PyResult<String> {
        self.get(name, "a str")
    }

    pub(crate) fn number(&self, name: &str) -> PyResult<u64> {
        self.get(name, "a whole number from 0")
    }

    pub(crate) fn parsed<T: FromStr<Err: Display>>(&self, name: &str) -> PyResult<T> {
        parse(name, &self.text(name)?)
    }

    pub(crate) fn parsed_list<T: FromStr<Err: Display>>(&self, name: &str) -> PyResult<Vec<T>> {
        let texts: Vec<String> = self.get(name, "a list of str")?;
        texts.iter().map(|text| parse(name, text)).collect()
    }

    pub(crate) fn parsed_path(&self, name: &str) -> PyResult<PathPattern> {
        let path: PathBuf = self.get(name, "a path")?;
        parse(name, path_text(name, &path)?)
    }

    pub(crate) fn paths(&self, name: &str) -> PyResult<Vec<CleanPath>> {
        let paths: Vec<PathBuf> = self.get(name, "a list of paths")?;
        paths
            .iter()
            .map(|path| CleanPath::new(path_text(name, path)?).map_err(value_error))
            .collect()
    }

    /// One port, or the first and the last of several.
    pub(crate) fn ports(&self, name: &str) -> PyResult<RangeInclusive<u16>> {
        let kind = "a port from 1 to 65535, or the first and the last of several";
        let (first, last) = match self.object(name)?.extract::<u16>() {
            Ok(port) => (port, port),
            Err(_) => self.get(name, kind)?,
        };
        if first == 0 || last < first {
            return Err(value_error(format!("{name} is {kind}")));
        }
        Ok(first..=last)
    }

    /// A dict, or pairs.
    pub(crate) fn env(&self, name: &str) -> PyResult<BTreeMap<String, String>> {
        let object = self.object(name)?;
        let is_mapping = object.cast::<PyMapping>().is_ok();
        let pairs = if is_mapping { object.call_method0("items")? } else { object };
        let pair = |pair: PyResult<Bound<'py, PyAny>>| pair?.extract::<(String, String)>();
        let pairs: PyResult<_> = pairs.try_iter().and_then(|pairs| pairs.map(pair).collect());
        pairs.map_err(|_| self.wrong(name, "a dict of str, or pairs of str"))
    }

    /// Some of a closed list of words; none of them stands for all.
    pub(crate) fn choices<T: Copy + Ord>(
        &self,
        name: &str,
        all: &[(&str, T)],
    ) -> PyResult<BTreeSet<T>> {
        let chosen: Vec<String> = self.get(name, "a list of str")?;
        if chosen.is_empty() {
            return Ok(all.iter().map(|(_, choice)| *choice).collect());
        }
        let choice = |word: &String| {
            let found = all.iter().find(|(known, _)| known == word);
            found.map(|(_, choice)| *choice).ok_or_else(|| {
                let words: Vec<_> = all.iter().map(|(word, _)| *word).collect();
                PyValueError::new_err(format!("{word:?} is none of {}", words.join(", ")))
            })
        };
        chosen.iter().map(choice).collect()
    }
}

fn parse<T: FromStr<Err: Display>>(name: &str, text: &str) -> PyResult<T> {
    text.parse().map_err(|error| value_error(format!("{name}: {error}")))
}

fn path_text<'a>(name: &str, path: &'a Path) -> PyResult<&'a str> {
    path.to_str().ok_or_else(|| value_error(format!("{name}: {} is no UTF-8", path.display())))
}
