//! `Policy`: rules and limits, to and from text, and to and from the plain form that Python's
//! authorities are made of: a kind, and fields by name (see `rights`).

use std::hash::{Hash, Hasher};

use pyisolate_supervisor::policy;
use pyisolate_supervisor::policy::{
    Act, Change, Document, Effect, Format, Origin, Rule, RuleText, diff, template,
};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyTuple};

use crate::errors::{policy_error, value_error};
use crate::limits::object_of;
use crate::rights::{self, Part};

/// What a cell may have. It does not change.
#[pyclass(frozen, module = "pyisolate._core", eq, hash)]
pub(crate) struct Policy(pub(crate) policy::Policy);

impl PartialEq for Policy {
    fn eq(&self, other: &Self) -> bool {
        self.0.canonical() == other.0.canonical()
    }
}

impl Hash for Policy {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.to_json().hash(state);
    }
}

/// A kind and its fields, as `rights` reads and writes them.
type Written<'py> = (String, Bound<'py, PyDict>);

#[pymethods]
impl Policy {
    #[new]
    fn new() -> Self {
        Self(policy::Policy::default())
    }

    #[staticmethod]
    #[pyo3(signature = (text, source, format, cell=None))]
    fn from_text(
        py: Python<'_>,
        text: &str,
        source: &str,
        format: &str,
        cell: Option<&str>,
    ) -> PyResult<Self> {
        let document = document(py, text, source, format)?;
        document.policy(cell).map(Self).map_err(value_error)
    }

    #[staticmethod]
    fn template(py: Python<'_>, name: &str) -> PyResult<Self> {
        template(name).map(Self).map_err(|error| policy_error(py, &error))
    }

    /// With more rules at its end, all with one effect; limits among them are set.
    fn with_rules(&self, effect: &str, rules: Vec<Written<'_>>) -> PyResult<Self> {
        let effect = match effect {
            "allow" => Effect::Allow,
            "deny" => Effect::Deny,
            other => return Err(value_error(format!("{other:?} is neither allow nor deny"))),
        };
        let mut policy = self.0.clone();
        for (kind, fields) in rules {
            match rights::part(&kind, &fields, effect)? {
                Part::Right(right) => {
                    let rule = Rule { effect, right, origin: Origin::default() };
                    if !policy.rules.contains(&rule) {
                        policy.rules.push(rule);
                    }
                }
                Part::Limit(..) if effect == Effect::Deny => {
                    return Err(value_error("a limit cannot be denied: grant a smaller one"));
                }
                Part::Limit(name, value) => {
                    policy.limits.0.insert(name, value);
                }
            }
        }
        Ok(Self(policy))
    }

    /// With another's rules and limits after its own.
    fn extended(&self, more: &Self) -> Self {
        let mut policy = self.0.clone();
        policy.extend(&more.0);
        Self(policy)
    }

    fn rules<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let rules = self
            .0
            .rules
            .iter()
            .map(|rule| {
                let (kind, fields) = rights::written(py, &rule.right)?;
                Ok((effect_name(rule.effect), kind, fields))
            })
            .collect::<PyResult<Vec<_>>>()?;
        PyList::new(py, rules)
    }

    fn limits<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let limits = PyDict::new(py);
        for (name, value) in &self.0.limits.0 {
            limits.set_item(name.as_str(), object_of(py, *name, *value)?)?;
        }
        Ok(limits)
    }

    fn to_yaml(&self) -> String {
        self.0.to_yaml()
    }

    fn to_toml(&self) -> String {
        self.0.to_toml()
    }

    fn to_json(&self) -> String {
        self.0.to_json()
    }

    fn allows(&self, verb: &str, target: Vec<String>) -> PyResult<bool> {
        let act = Act::parse(verb, &target).map_err(value_error)?;
        Ok(self.0.decide(&act).allowed)
    }

    /// The fields of `pyisolate.policy.Explanation`, in their order.
    fn explain<'py>(
        &self,
        py: Python<'py>,
        verb: &str,
        target: Vec<String>,
    ) -> PyResult<Bound<'py, PyTuple>> {
        let act = Act::parse(verb, &target).map_err(value_error)?;
        let explained = self.0.explain(&act);
        let (rule, place) = match &explained.rule {
            Some(RuleText { text, place, .. }) => (Some(text), Some(place)),
            None => (None, None),
        };
        let near = explained
            .near
            .iter()
            .map(|near| format!("{} ({}): {}", near.rule.text, near.rule.place, near.why));
        (
            explained.allowed,
            explained.act.to_string(),
            rule,
            place,
            explained.summary(),
            PyTuple::new(py, near.collect::<Vec<_>>())?,
            &explained.grant_yaml,
            &explained.grant_python,
        )
            .into_pyobject(py)
    }

    /// What `new` in its place would newly allow and newly deny, the limits that differ, and all of
    /// it for people.
    fn diff<'py>(&self, py: Python<'py>, new: &Self) -> PyResult<Bound<'py, PyTuple>> {
        let difference = diff(&self.0, &new.0);
        let changes = |changes: &[Change]| {
            let change = |change: &Change| (change.text.clone(), change.place.clone(), change.why);
            changes.iter().map(change).collect::<Vec<_>>()
        };
        let limits: Vec<_> = difference
            .limits
            .iter()
            .map(|change| {
                let number = |value| object_of(py, change.limit, value);
                Ok((change.limit.as_str(), number(change.old)?, number(change.new)?))
            })
            .collect::<PyResult<_>>()?;
        (changes(&difference.allowed), changes(&difference.denied), limits, difference.to_string())
            .into_pyobject(py)
    }

    fn __repr__(&self) -> String {
        format!("<Policy of {} rules>", self.0.rules.len())
    }
}

/// Reads a document.
pub(crate) fn document(
    py: Python<'_>,
    text: &str,
    source: &str,
    format: &str,
) -> PyResult<Document> {
    let format = match format {
        "yaml" => Format::Yaml,
        "toml" => Format::Toml,
        "json" => Format::Json,
        other => return Err(value_error(format!("{other:?} is none of yaml, toml and json"))),
    };
    Document::parse(text, source, format).map_err(|error| policy_error(py, &error))
}

fn effect_name(effect: Effect) -> &'static str {
    match effect {
        Effect::Allow => "allow",
        Effect::Deny => "deny",
    }
}
