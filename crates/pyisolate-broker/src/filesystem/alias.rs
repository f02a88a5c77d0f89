//! Denials whose own path leads elsewhere: they hold there too.
//!
//! A denial is read by its text first. Where the host's links make its root another name of some
//! place, that place is denied with it: `/var/run/keys` is `/run/keys`, whichever of them a cell
//! asks for. Links that only a wildcard of the denial matches are not looked for.

use std::os::fd::AsFd;

use pyisolate_policy::{CleanPath, Effect, FilesRight, Origin, PathPattern, Policy, Right, Rule};
use rustix::io::Errno;

use super::beneath::{Led, Walk, follow, open_top};
use super::judge::{self, Use};
use super::root::{clean, join};
use super::stop::Stop;
use crate::session::Session;

/// Where links lead the denials that are in force now.
#[derive(Debug, Default)]
pub(super) struct Aliases {
    /// The denials, spelt with the place that their root leads to. Only those that differ.
    denials: Policy,
    /// Where the links lie that they go through.
    links: Vec<CleanPath>,
}

impl Aliases {
    pub(super) fn now(session: &Session) -> Result<Self, Stop> {
        let mut aliases = Self::default();
        for right in judge::files_rules(&session.policy(), Effect::Deny) {
            let Some(root) = aliases.lead(&right.pattern.root)? else { continue };
            let pattern = PathPattern { root, ..right.pattern.clone() };
            let right = Right::Files(FilesRight { pattern, ..right.clone() });
            let rule = Rule { effect: Effect::Deny, right, origin: Origin::default() };
            aliases.denials.rules.push(rule);
        }
        Ok(aliases)
    }

    /// Where a root leads, if there is a link on the way. What is not there yet, or cannot be
    /// reached, is nothing that could be read.
    fn lead(&mut self, root: &CleanPath) -> Result<Option<CleanPath>, Stop> {
        match open_top(root.as_str()) {
            Err(Errno::LOOP) => {}
            Ok(_) | Err(Errno::NOENT | Errno::NOTDIR | Errno::ACCESS) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        }
        let links = &mut self.links;
        let mut said = None;
        let mut at_link = |at: &str, text: Option<String>| {
            links.extend(CleanPath::new(&format!("/{at}")));
            said = text;
            Ok(())
        };
        let (top, mut count) = (open_top("/")?, 0);
        let walk = Walk {
            path: root,
            usage: Use::See,
            last: true,
            top: true,
            links: &mut count,
            at_link: &mut at_link,
        };
        match follow(top.as_fd(), root.as_str(), walk) {
            Ok(Led::Within(rest) | Led::Away(rest) | Led::Above(rest)) => {
                Ok(Some(join(&clean("/")?, &rest)?))
            }
            // A folder is missing that a `..` leaves again. The cell may have taken it away, and the
            // denial would go with it: it stays where the link's text says.
            Err(Stop::Kernel(Errno::NOENT)) => {
                said.map(|rest| join(&clean("/")?, &rest)).transpose()
            }
            Err(Stop::Kernel(Errno::NOTDIR | Errno::LOOP | Errno::ACCESS)) => Ok(None),
            // It leads through one of the kernel's own file systems, where nothing is opened.
            Err(Stop::Refused(_)) => Ok(None),
            Err(stop) => Err(stop),
        }
    }

    /// Whether a denial holds at a path on which there is no link.
    pub(super) fn deny(&self, usage: Use, real: &CleanPath) -> bool {
        judge::is_denied(&self.denials, usage, real)
    }

    /// Why what lies at `from` may not be moved to `to`, or removed, if so: denials hold inside, or
    /// go through it. Both are paths on which there is no link.
    pub(super) fn against_move(
        &self,
        from: &CleanPath,
        to: &CleanPath,
        folder: bool,
    ) -> Option<&'static str> {
        if self.links.iter().any(|link| link.below(from).or(link.below(to)).is_some()) {
            return Some("a denial goes through a link there");
        }
        judge::denials_against_move(&self.denials, from, to, folder)
    }
}
