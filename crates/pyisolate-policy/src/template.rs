//! The policies that come with the program, by name.

use thiserror::Error;

use crate::policy::Policy;
use crate::text::{Document, Format, nearest};

/// A policy that comes with the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Template {
    /// By which `extends` and [`template`] know it.
    pub name: &'static str,
    /// Another name that it answers to.
    pub alias: Option<&'static str>,
    /// What it is for: the first line of its text.
    pub purpose: &'static str,
    /// The YAML text.
    pub text: &'static str,
}

const fn shipped(
    name: &'static str,
    alias: Option<&'static str>,
    purpose: &'static str,
    text: &'static str,
) -> Template {
    Template { name, alias, purpose, text }
}

const TEMPLATES: [Template; 6] = [
    shipped(
        "compute-only",
        None,
        "Pure computation: modules without any reach, no files, no network, no clock.",
        include_str!("templates/compute-only.yml"),
    ),
    shipped(
        "data-analysis",
        None,
        "Tables in, tables out: numpy, pandas and pyarrow on the files below /data.",
        include_str!("templates/data-analysis.yml"),
    ),
    shipped(
        "ml-inference",
        Some("ml"),
        "A trained model that answers questions: reads below /models, nothing leaves but results.",
        include_str!("templates/ml-inference.yml"),
    ),
    shipped(
        "readonly-fs",
        None,
        "Programs that look at files: everything below /data can be read, nothing written.",
        include_str!("templates/readonly-fs.yml"),
    ),
    shipped(
        "stdlib.readonly",
        None,
        "The parts of the standard library that only transform what they are given.",
        include_str!("templates/stdlib.readonly.yml"),
    ),
    shipped(
        "web-scraper",
        Some("web_scraper"),
        "A program that fetches public web pages and takes them apart; you add the sites.",
        include_str!("templates/web-scraper.yml"),
    ),
];

/// A name that no template has.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error(
    "there is no policy template {name:?}{} the templates are {}",
    suggestion(.near),
    .names.join(", ")
)]
pub struct UnknownTemplate {
    /// What was asked for.
    pub name: String,
    /// The name that was probably meant.
    pub near: Option<&'static str>,
    /// The names that there are.
    pub names: Vec<&'static str>,
}

fn suggestion(near: &Option<&'static str>) -> String {
    near.map_or_else(|| ";".to_owned(), |name| format!("; did you mean {name:?}?"))
}

/// The policy of that name.
///
/// # Errors
/// [`UnknownTemplate`], which lists the names: an unknown name grants nothing.
pub fn template(name: &str) -> Result<Policy, UnknownTemplate> {
    let unknown = || UnknownTemplate {
        name: name.chars().take(80).collect(),
        near: nearest(name, names()),
        names: names(),
    };
    let found = find(name).ok_or_else(unknown)?;
    let source = format!("template {}", found.name);
    // A test reads each of them, so none is refused here.
    Document::parse(found.text, &source, Format::Yaml)
        .map(|document| document.defaults)
        .map_err(|_| unknown())
}

/// All of them, sorted by name.
#[must_use]
pub fn templates() -> &'static [Template] {
    &TEMPLATES
}

pub(crate) fn find(name: &str) -> Option<&'static Template> {
    TEMPLATES.iter().find(|template| template.name == name || template.alias == Some(name))
}

pub(crate) fn names() -> Vec<&'static str> {
    TEMPLATES.iter().map(|template| template.name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::act::Act;

    #[test]
    fn each_can_be_read_and_says_what_it_is_for() {
        for shipped in templates() {
            let source = shipped.name;
            if let Err(error) = Document::parse(shipped.text, source, Format::Yaml) {
                panic!("{error}");
            }
            let policy = template(shipped.name).unwrap();
            assert!(!policy.rules.is_empty());
            assert_eq!(shipped.text.lines().next().unwrap(), format!("# {}", shipped.purpose));
            let again = Document::parse(&policy.to_yaml(), "", Format::Yaml).unwrap().defaults;
            assert_eq!(again, policy.canonical(), "{}", shipped.name);
        }
        assert!(names().is_sorted());
        assert_eq!(template("ml").unwrap(), template("ml-inference").unwrap());
        assert_eq!(template("web_scraper").unwrap(), template("web-scraper").unwrap());
    }

    #[test]
    fn they_grant_what_they_say_and_no_more() {
        let may = |name: &str, verb: &str, target: &str| {
            let target: Vec<String> = target.split_whitespace().map(str::to_owned).collect();
            template(name).unwrap().decide(&Act::parse(verb, &target).unwrap()).allowed
        };
        assert!(may("readonly-fs", "read", "/data/x") && !may("readonly-fs", "write", "/data/x"));
        assert!(may("data-analysis", "write", "/data/out/x"));
        assert!(!may("data-analysis", "write", "/data/x"));
        assert!(may("ml-inference", "read", "/models/x"));
        assert!(may("stdlib.readonly", "clock", "time") && !may("compute-only", "clock", "time"));
        for name in names() {
            assert!(may(name, "import", "math"), "{name}");
            assert!(!may(name, "read", "/etc/passwd"), "{name}");
            assert!(!may(name, "get", "https://example.org/"), "{name}");
            assert!(!may(name, "connect", "example.org:80"), "{name}");
            assert!(!may(name, "run", "sh"), "{name}");
        }
    }

    #[test]
    fn secrets_are_never_made_from_a_seed() {
        for name in names() {
            let policy = template(name).unwrap();
            let seeded = policy
                .rules
                .iter()
                .any(|rule| matches!(rule.right, crate::right::Right::Random { seed: Some(_) }));
            let import = Act::Import { module: "secrets".to_owned() };
            assert!(!(seeded && policy.decide(&import).allowed), "{name}");
        }
    }

    #[test]
    fn an_unknown_name_grants_nothing() {
        let error = template("web-scrapper").unwrap_err();
        assert_eq!(error.near, Some("web-scraper"));
        assert_eq!(
            error.to_string(),
            "there is no policy template \"web-scrapper\"; did you mean \"web-scraper\"? the \
             templates are compute-only, data-analysis, ml-inference, readonly-fs, \
             stdlib.readonly, web-scraper"
        );
    }
}
