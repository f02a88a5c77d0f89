//! A tree into a document.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::reader::{Fields, Reader, shorten};
use super::rights::{self, RIGHT_KEYS};
use super::tree::{Located, Spot, Value};
use super::{Document, TextError};
use crate::limits::{LimitName, Limits, Unit};
use crate::name::CellName;
use crate::policy::{LimitChanges, Policy, Rule};
use crate::template;

/// How many rules one document may come to, with what `extends` repeats: a hundred cells of a
/// thousand rules.
const RULES_MAX: usize = 100_000;
/// A rule counts as one more for so many bytes of its text, as the environment of a program or a
/// list of hosts can be as long as the document.
const RULE_BYTES: usize = 256;

/// What one policy of a document says by itself.
struct Section {
    extends: Vec<(String, Spot)>,
    own: Policy,
}

/// Reads the tree of `text`, which is shown in errors.
pub(crate) fn document(
    root: &Located,
    source_name: &str,
    text: &str,
) -> Result<Document, TextError> {
    let mut reader = Reader::new(source_name);
    let document = read(&mut reader, root);
    if reader.problems.is_empty() {
        return Ok(document);
    }
    Err(TextError::new(source_name, text, reader.problems))
}

fn read(reader: &mut Reader, root: &Located) -> Document {
    let fields = reader.entries(root, "version: 1");
    version(reader, fields, root.spot);
    let has = |key: &str| fields.get(key).is_some();
    let is_document = has("defaults") || has("cells") || has("sandboxes");
    let policy_keys = policy_keys();
    let (defaults, cells) = if is_document {
        for entry in fields.all() {
            if policy_keys.contains(&entry.key.as_str()) {
                let message = format!("{:?} stands beside \"defaults\" or \"cells\"", entry.key);
                reader.problem(entry.spot, message, "move it below \"defaults\", for every cell");
            }
        }
        let mut keys = vec!["version", "defaults", "cells", "sandboxes"];
        keys.extend(&policy_keys);
        reader.only(fields, "a document", &keys);
        let defaults = fields.get("defaults").map(|node| {
            let fields = reader.fields(node, "defaults", &policy_keys);
            section(reader, fields)
        });
        (defaults, cells(reader, fields, &policy_keys))
    } else {
        let mut keys = vec!["version", "defaults", "cells"];
        keys.extend(&policy_keys);
        reader.only(fields, "a policy", &keys);
        (Some(section(reader, fields)), BTreeMap::new())
    };
    let mut resolver = Resolver { cells: &cells, done: HashMap::new(), rules: 0 };
    let defaults = defaults.map(|section| resolver.resolve(reader, &section, &mut Vec::new()));
    let mut resolved = BTreeMap::new();
    for name in cells.keys() {
        let policy = resolver.cell(reader, name, &mut Vec::new());
        resolved.insert(name.clone(), policy);
    }
    Document { defaults: defaults.unwrap_or_default(), cells: resolved }
}

fn version(reader: &mut Reader, fields: Fields<'_>, root: Spot) {
    match fields.get("version").map(|node| (&node.value, node.spot)) {
        None => reader.problem(root, "the version is missing", "begin with: version: 1"),
        Some((Value::Number(1), _)) => {}
        Some((Value::Text(text), _)) if text == "1" => {}
        Some((value, spot)) => {
            let shown = match value {
                Value::Number(number) => number.to_string(),
                Value::Text(text) | Value::Other(text) => shorten(text),
                value => value.kind().to_owned(),
            };
            reader.problem(spot, format!("the version is {shown}"), "this reads version 1");
        }
    }
}

/// What a policy may have.
fn policy_keys() -> Vec<&'static str> {
    let mut keys = vec!["extends"];
    keys.extend(RIGHT_KEYS);
    keys.extend(["deny", "limits", "mem"]);
    keys.extend(LimitName::ALL.map(LimitName::as_str));
    keys
}

fn cells(
    reader: &mut Reader,
    fields: Fields<'_>,
    policy_keys: &[&str],
) -> BTreeMap<CellName, Section> {
    if let (Some(_), Some(second)) = (fields.entry("cells"), fields.entry("sandboxes")) {
        reader.problem(second.spot, "\"sandboxes\" is another name of \"cells\"", "merge the two");
    }
    let mut cells = BTreeMap::new();
    let Some(node) = fields.get("cells").or_else(|| fields.get("sandboxes")) else {
        return cells;
    };
    for entry in reader.entries(node, "{name: {fs: ...}}").all() {
        let place = format!("cell {}", shorten(&entry.key));
        let fields = reader.fields(&entry.value, &place, policy_keys);
        let section = section(reader, fields);
        match CellName::new(&entry.key) {
            Ok(name) => {
                cells.insert(name, section);
            }
            Err(error) => reader.problem(entry.spot, error.to_string(), ""),
        }
    }
    cells
}

fn section(reader: &mut Reader, fields: Fields<'_>) -> Section {
    let mut extends = Vec::new();
    for node in reader.items(fields.get("extends")) {
        if let Some(name) = reader.text(node, "the name of a template or cell") {
            extends.push((name.to_owned(), node.spot));
        }
    }
    let mut rules = Vec::new();
    rights::grants(reader, fields, &mut rules);
    if let Some(node) = fields.get("deny") {
        rights::denials(reader, node, &mut rules);
    }
    let limits = limits(reader, fields);
    Section { extends, own: Policy { rules, limits } }
}

fn limits(reader: &mut Reader, fields: Fields<'_>) -> LimitChanges {
    let mut changes = LimitChanges::default();
    let mut keys = vec!["mem"];
    keys.extend(LimitName::ALL.map(LimitName::as_str));
    let nested = fields.get("limits").map(|node| reader.fields(node, "limits", &keys));
    for fields in [Some(fields), nested].into_iter().flatten() {
        for entry in fields.all() {
            let key = if entry.key == "mem" { "mem_bytes" } else { &entry.key };
            let Some(limit) = LimitName::ALL.into_iter().find(|limit| limit.as_str() == key) else {
                continue;
            };
            let value = match limit.unit() {
                Unit::Milliseconds | Unit::Count => reader.number(&entry.value),
                Unit::Bytes => reader.size(&entry.value),
                Unit::Thousandths => reader.thousandths(&entry.value),
            };
            let Some(value) = value else { continue };
            let mut all = Limits::default();
            *all.slot(limit) = value;
            if let Err(error) = all.check() {
                reader.problem(entry.value.spot, error.to_string(), "");
            }
            if changes.0.insert(limit, value).is_some() {
                let message = format!("the limit {limit} is there twice");
                reader.problem(entry.spot, message, "keep one of them");
            }
        }
    }
    changes
}

/// Puts what `extends` names before what a section says itself.
struct Resolver<'s> {
    cells: &'s BTreeMap<CellName, Section>,
    done: HashMap<CellName, Policy>,
    rules: usize,
}

impl Resolver<'_> {
    fn cell(&mut self, reader: &mut Reader, name: &CellName, path: &mut Vec<CellName>) -> Policy {
        if let Some(done) = self.done.get(name) {
            return done.clone();
        }
        path.push(name.clone());
        let policy = match self.cells.get(name) {
            Some(section) => self.resolve(reader, section, path),
            None => Policy::default(),
        };
        path.pop();
        self.done.insert(name.clone(), policy.clone());
        policy
    }

    fn resolve(
        &mut self,
        reader: &mut Reader,
        section: &Section,
        path: &mut Vec<CellName>,
    ) -> Policy {
        let mut policy = Policy::default();
        if self.rules > RULES_MAX {
            return policy;
        }
        // Of what is named twice the last place counts, as it does for rules.
        let mut named = HashSet::new();
        let mut bases: Vec<_> =
            section.extends.iter().rev().filter(|(base, _)| named.insert(base)).collect();
        bases.reverse();
        for (base, spot) in bases {
            let base = self.base(reader, base, *spot, path);
            policy.rules.extend(base.rules);
            policy.limits.0.extend(base.limits.0);
        }
        // Looks for repetitions, once for all of them.
        policy.extend(&section.own);
        let before = self.rules;
        let size = |rule: &Rule| 1 + rule.to_string().len() / RULE_BYTES;
        self.rules = before.saturating_add(policy.rules.iter().map(size).sum());
        if self.rules > RULES_MAX {
            if before <= RULES_MAX {
                let spot = section.extends.first().map_or_else(Spot::default, |(_, spot)| *spot);
                let advice = format!("{RULES_MAX} are the most, those of \"extends\" among them");
                reader.problem(spot, "the document comes to too many rules", advice);
            }
            return Policy::default();
        }
        policy
    }

    fn base(
        &mut self,
        reader: &mut Reader,
        base: &str,
        spot: Spot,
        path: &mut Vec<CellName>,
    ) -> Policy {
        let cell = CellName::new(base).ok().filter(|name| self.cells.contains_key(name));
        let template = template::find(base);
        match (cell, template) {
            (Some(_), Some(_)) => {
                let message = format!("{base:?} is both a template and a cell of this document");
                reader.problem(spot, message, "give the cell another name");
            }
            (Some(cell), None) if path.contains(&cell) => {
                let chain: Vec<&str> = path.iter().chain([&cell]).map(CellName::as_str).collect();
                let message = format!("\"extends\" goes round in a circle: {}", chain.join(" -> "));
                reader.problem(spot, message, "remove one of them");
            }
            // What a chain of cells costs is one frame of the stack each.
            (Some(_), None) if path.len() >= super::tree::DEPTH_MAX => {
                reader.problem(spot, "\"extends\" is nested too deep", "");
            }
            (Some(cell), None) => return self.cell(reader, &cell, path),
            (None, Some(_)) => match template::template(base) {
                Ok(policy) => return policy,
                Err(error) => reader.problem(spot, error.to_string(), ""),
            },
            (None, None) => {
                let message = format!("there is no template or cell {:?}", shorten(base));
                let cells = self.cells.keys().map(CellName::as_str);
                let names = template::names().into_iter().chain(cells);
                let advice = match reader.nearest(base, names) {
                    Some(near) => format!("did you mean {near:?}?"),
                    None => format!("the templates are {}", template::names().join(", ")),
                };
                reader.problem(spot, message, advice);
            }
        }
        Policy::default()
    }
}
