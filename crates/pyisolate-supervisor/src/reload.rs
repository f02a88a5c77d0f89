//! Changing the policy of cells that run.

use std::sync::Arc;

use pyisolate_broker::journal::Kind;
use pyisolate_policy::{Document, Policy};
use subtle::ConstantTimeEq;
use thiserror::Error;

use crate::cell::{CellShared, lock};
use crate::grants;
use crate::supervisor::Supervisor;

/// Why no policy was changed. The old ones are in force.
#[derive(Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReloadError {
    /// Nobody set a token, so nobody can have the right one.
    #[error("no policy token is set, so no policy can be changed: set_policy_token() first")]
    NoToken,
    /// The token is not the one that was set.
    #[error("the policy token is wrong: the policies in force are kept")]
    WrongToken,
    /// The document says nothing that holds for this cell.
    #[error("{0}")]
    Document(String),
}

impl Supervisor {
    /// Sets the token that `reload_policy` asks for.
    pub fn set_policy_token(&self, token: &[u8]) {
        *lock(self.token()) = Some(token.to_vec());
    }

    /// Checks a token, in a time that does not depend on where it differs.
    ///
    /// # Errors
    /// [`ReloadError::NoToken`], [`ReloadError::WrongToken`].
    pub fn check_policy_token(&self, token: &[u8]) -> Result<(), ReloadError> {
        match &*lock(self.token()) {
            None => Err(ReloadError::NoToken),
            Some(right) if bool::from(right.as_slice().ct_eq(token)) => Ok(()),
            Some(_) => Err(ReloadError::WrongToken),
        }
    }

    /// Gives every running cell whose policy came from a document what this one says for it: for its
    /// next request, and for each use of a handle. All cells' policies are made before any is
    /// changed. Numeric limits stay as they were when the cell was spawned, and so do the imports that
    /// its runtime was told of then; further ones are asked for. Returns the names of the cells,
    /// sorted.
    ///
    /// # Errors
    /// [`ReloadError`]; nothing was changed.
    pub fn reload_policy(
        &self,
        document: &Document,
        token: &[u8],
    ) -> Result<Vec<String>, ReloadError> {
        self.check_policy_token(token)?;
        let mut changes = Vec::new();
        for cell in self.cells() {
            let Some(settings) = cell.settings.get().filter(|it| it.follows_document) else {
                continue;
            };
            let policy = document
                .policy(Some(settings.name.as_str()))
                .map_err(|error| ReloadError::Document(error.to_string()))?;
            changes.push((Arc::clone(&cell), policy));
        }
        for (cell, policy) in &changes {
            cell.set_policy(policy);
        }
        let settings = changes.iter().filter_map(|(cell, _)| cell.settings.get());
        let mut names: Vec<_> = settings.map(|settings| settings.name.to_string()).collect();
        names.sort_unstable();
        Ok(names)
    }
}

impl CellShared {
    /// Puts another policy in force.
    pub(crate) fn set_policy(&self, policy: &Policy) {
        if let Some(settings) = self.settings.get() {
            let policy = Arc::new(grants::in_force(policy, &settings.granted));
            settings.note_spawn(Kind::Policy, &policy);
            settings.session.set_policy(policy);
            settings.session.revoke_denied_streams();
            tracing::info!(cell = settings.name.as_str(), "policy changed");
        }
    }
}
