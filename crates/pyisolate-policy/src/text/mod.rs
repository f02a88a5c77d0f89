//! Policies as text: YAML, TOML and JSON by one model.

mod error;
mod form;
mod json;
mod net;
mod read;
mod reader;
mod rights;
mod toml;
mod tree;
mod write;
mod yaml;

use std::collections::BTreeMap;
use std::path::Path;

pub use error::{Problem, TextError};
pub(crate) use net::{PORTS, clean_path, default_methods};
pub(crate) use reader::nearest;
use tree::{Spot, TEXT_BYTES_MAX};
pub(crate) use write::{ports, url};

use crate::name::{CellName, NameError};
use crate::policy::Policy;

/// A text's form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// YAML 1.2, the usual one.
    Yaml,
    /// TOML 1.0.
    Toml,
    /// JSON.
    Json,
}

impl Format {
    /// By the ending of a file's name: `.yml`, `.yaml`, `.toml` or `.json`.
    #[must_use]
    pub fn of_path(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()? {
            "yml" | "yaml" => Some(Self::Yaml),
            "toml" => Some(Self::Toml),
            "json" => Some(Self::Json),
            _ => None,
        }
    }
}

/// What one text says: a policy for every cell, and what cells have beside it by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Document {
    /// For every cell.
    pub defaults: Policy,
    /// Beside the defaults, for the cell of that name.
    pub cells: BTreeMap<CellName, Policy>,
}

impl Document {
    /// Reads a text. Every rule remembers `source_name` and its line and column.
    ///
    /// # Errors
    /// [`TextError`] with everything that is wrong with it.
    pub fn parse(text: &str, source_name: &str, format: Format) -> Result<Self, TextError> {
        let error = |problems| TextError::new(source_name, text, problems);
        if text.len() > TEXT_BYTES_MAX {
            let message = format!("the text is longer than {TEXT_BYTES_MAX} bytes");
            return Err(error(vec![Problem::at(Spot::default(), message, "")]));
        }
        let root = match format {
            Format::Yaml => yaml::read(text).map_err(|problem| vec![problem]),
            Format::Toml => toml::read(text),
            Format::Json => json::read(text).map_err(|problem| vec![problem]),
        };
        read::document(&root.map_err(error)?, source_name, text)
    }

    /// What a cell has: the defaults and then its own. A cell that is not listed has the defaults.
    ///
    /// # Errors
    /// [`NameError`] if `cell` is no cell's name.
    pub fn policy(&self, cell: Option<&str>) -> Result<Policy, NameError> {
        let mut policy = self.defaults.clone();
        if let Some(name) = cell
            && let Some(own) = self.cells.get(&CellName::new(name)?)
        {
            policy.extend(own);
        }
        Ok(policy)
    }
}
