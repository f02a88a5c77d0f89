//! Gives a confined cell its settings, after a look at whether what confines it is what is required.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use pyisolate_abi::message::ToGuest;
use pyisolate_abi::pickle::{Caps, TrustedNames, Value};
use pyisolate_broker::journal::Kind;
use pyisolate_broker::{Session, SessionOptions};
use pyisolate_jail::{LayerName, scratch};
use pyisolate_policy::{Limits, Policy};

use crate::cell::{CellShared, Settings, lock};
use crate::error::{CellError, Death, SpawnError};
use crate::grants;
use crate::groups::group_limits;
use crate::options::{Backend, CellOptions};
use crate::pace::Paces;
use crate::supervisor::Inner;

/// Whom settings are for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    Cell,
    Template,
}

impl Inner {
    /// Gives a confined process its settings: from here on it is the caller's cell.
    /// The first guest code is what it runs after this; so this is where a requirement is checked.
    pub(crate) fn configure(
        &self,
        cell: &CellShared,
        options: CellOptions,
        scope: Scope,
    ) -> Result<(), SpawnError> {
        self.give_settings(cell, options, scope).inspect_err(|_| cell.condemn(Death::Killed))?;
        cell.note_confinement();
        Ok(())
    }

    fn give_settings(
        &self,
        cell: &CellShared,
        options: CellOptions,
        scope: Scope,
    ) -> Result<(), SpawnError> {
        let limits = options.limits;
        let require = options.require.unwrap_or_else(|| self.require.clone());
        if let Some(placement) = cell.body.placement() {
            placement.limit(match cell.body.as_machine() {
                Some(resident) => resident.group_limits(&limits),
                None => group_limits(&limits),
            });
        }
        let report = cell.report(scope == Scope::Cell && require.needs_cgroup(options.backend));
        let mut lacking = require.lacking(options.backend, &report);
        if scope == Scope::Template {
            // It runs the host's own code, and its cells are in groups of their own.
            lacking.retain(|layer| layer.name != LayerName::Cgroup);
        }
        if !lacking.is_empty() {
            return Err(SpawnError::Confinement { require, lacking });
        }
        let mut granted =
            grants::beside(&options.imports, &options.capabilities, options.policy.as_ref());
        let has_policy = options.policy.is_some() || !options.granted.is_empty();
        let scratch = match limits.scratch_bytes {
            0 => None,
            bytes => {
                granted.push(grants::scratch());
                Some(scratch(bytes).map_err(|error| SpawnError::Scratch { error })?)
            }
        };
        granted.extend(options.granted);
        let policy = grants::in_force(&options.policy.unwrap_or_default(), &granted);
        let mut settings = grants::settings(&policy, has_policy, &options.capabilities);
        settings.extend(own_settings(&limits, &options.trusted, scope));
        settings.push((Value::Text("restored".to_owned()), Value::Bool(false)));
        let pickle = Value::Dict(settings).to_pickle();
        let caps = Caps {
            pickle_bytes: usize::try_from(limits.message_bytes).unwrap_or(usize::MAX),
            ..Caps::default()
        };
        let journal = if scope == Scope::Cell { self.journal.clone() } else { None };
        let session = SessionOptions {
            cell: options.name.clone(),
            policy: Arc::new(policy),
            limits: limits.clone(),
            secrets: options.secrets,
            // None can be carried into a machine.
            takes_descriptors: options.hand_descriptors && options.backend != Backend::Microvm,
            scratch,
            journal: journal.clone(),
        };
        let now = Instant::now();
        lock(&cell.reader).paces = Some(Paces::new(&limits, now));
        let settings_known = cell.settings.set(Settings {
            name: options.name,
            backend: options.backend,
            limits,
            require,
            trusted: options.trusted,
            caps,
            claimed: now,
            session: Arc::new(Session::new(Arc::clone(&self.broker), session)),
            capabilities: options.capabilities,
            granted,
            follows_document: options.follows_document,
            denials: Mutex::new(lock(&self.denials).clone()),
            journal,
        });
        debug_assert!(settings_known.is_ok(), "a cell is claimed once");
        if let Some(settings) = cell.settings.get() {
            settings.note_spawn(Kind::Spawn, &settings.session.policy());
        }
        let died = |error: CellError| match error {
            CellError::Dead(death) => SpawnError::Unborn(death),
            other => SpawnError::Setup(other),
        };
        cell.tell(&ToGuest::Configure(&pickle)).map_err(died)
    }
}

/// What a guest is told when it goes on from a snapshot: nothing is granted, nothing limited yet, and
/// its randomness is everybody's.
pub(crate) fn nobodys_settings() -> Vec<u8> {
    let mut settings = grants::settings(&Policy::default(), false, &BTreeMap::new());
    let (limits, trusted) = (Limits::default(), TrustedNames::default());
    settings.extend(own_settings(&limits, &trusted, Scope::Template));
    settings.push((Value::Text("restored".to_owned()), Value::Bool(true)));
    Value::Dict(settings).to_pickle()
}

/// What the guest's runtime has to know beside its grants.
fn own_settings(limits: &Limits, trusted: &TrustedNames, scope: Scope) -> Vec<(Value, Value)> {
    let text = |text: &str| Value::Text(text.to_owned());
    let number = |number: u64| Value::Int(i64::try_from(number).unwrap_or(i64::MAX));
    let trusted = trusted
        .names()
        .iter()
        .map(|name| Value::Tuple(vec![text(&name.module), text(&name.qualname)]));
    vec![
        (text("trusted"), Value::List(trusted.collect())),
        // A template's set-up is the host's own code: it may import anything, and its process takes
        // no hard limits, which its cells would inherit.
        (text("limited"), Value::Bool(scope == Scope::Cell)),
        (text("message_bytes"), number(limits.message_bytes)),
        (text("mem_bytes"), number(limits.mem_bytes)),
        (text("open_files"), number(limits.open_files)),
        (text("threads"), number(limits.threads)),
        // The kernel counts whole seconds; it is the last resort behind the supervisor's clock.
        (text("cpu_seconds"), number(limits.cpu_ms.div_ceil(1000) + 1)),
    ]
}
