//! Templates: what has imported modules or run set-up code once, for all the cells that start from it.

use std::sync::{Arc, Weak};
use std::time::Duration;

use pyisolate_channel::control::Control;
use pyisolate_microvm::{Sharing, Snapshot};
use pyisolate_policy::{CellName, Imports, Limits};

use crate::cell::CellShared;
use crate::configure::Scope;
use crate::error::{Death, SpawnError};
use crate::machines::Base;
use crate::options::{Backend, CellOptions};
use crate::outbound::Patience;
use crate::process::Process;
use crate::supervisor::{BIRTH_PATIENCE, Inner, Supervisor, again_if_killed};
use crate::zygote::Zygote;

/// Cells start with what it did, and share its memory. Dropping it ends its process, if it has one,
/// and the cells that were forked from that.
#[derive(Debug)]
pub struct Template {
    source: Source,
    supervisor: Weak<Inner>,
}

/// What its cells come from.
#[derive(Debug)]
enum Source {
    /// A zygote in a jail of its own.
    Zygote { zygote: Arc<Zygote>, process: Arc<CellShared> },
    /// A machine that stands still.
    Snapshot { base: Arc<Base>, snapshot: Snapshot },
}

impl Drop for Template {
    fn drop(&mut self) {
        let Source::Zygote { zygote, process } = &self.source else { return };
        if !process.body.owner().is_this() {
            return;
        }
        zygote.shut_down();
        // It ran set-up code, and may not do as it is told.
        process.condemn(Death::Killed);
    }
}

impl Supervisor {
    /// Makes a template, which has imported `imports` and run `setup`, for cells of a backend: a
    /// zygote in its own jail, or the snapshot of a virtual machine.
    ///
    /// # Errors
    /// [`SpawnError::Setup`] with the guest's traceback if the set-up raised,
    /// [`SpawnError::NoTemplates`] for sub-interpreters.
    pub fn template(
        &self,
        backend: Backend,
        imports: &Imports,
        setup: &str,
    ) -> Result<Template, SpawnError> {
        let source = again_if_killed(|| match backend {
            Backend::Process => self.inner.make_zygote(imports, setup),
            Backend::Microvm => {
                let base = self.inner.machine_base()?;
                let sharing = Sharing::Copy;
                let cell = self.inner.make_machine(&base.vmm, &base.snapshot, sharing)?;
                self.inner.set_up(&cell, backend, imports, setup)?;
                let snapshot = self.inner.make_snapshot(&base, &cell)?;
                Ok(Source::Snapshot { base, snapshot })
            }
            Backend::Subinterpreter => Err(SpawnError::NoTemplates),
        })?;
        Ok(Template { source, supervisor: Arc::downgrade(&self.inner) })
    }
}

impl Inner {
    fn make_zygote(&self, imports: &Imports, setup: &str) -> Result<Source, SpawnError> {
        let zygote = self.zygote()?;
        let (ours, theirs) = Control::pair()?;
        let cell = self.make(&zygote, Some(theirs))?;
        self.set_up(&cell, Backend::Process, imports, setup)?;
        if let Some(threads @ 2..) = cell.body.as_process().and_then(Process::threads) {
            cell.condemn(Death::Killed);
            return Err(SpawnError::SetupThreads(threads - 1));
        }
        // Told to stop, a template's process does not end: it serves forks on its own socket.
        cell.hand_over().map_err(SpawnError::Setup)?;
        let zygote = Zygote::of_template(self.number(), ours, &self.monitor)?;
        Ok(Source::Zygote { zygote, process: cell })
    }

    /// Runs the imports and the set-up in what is to be a template.
    fn set_up(
        &self,
        cell: &CellShared,
        backend: Backend,
        imports: &Imports,
        setup: &str,
    ) -> Result<(), SpawnError> {
        let name = CellName::new(&format!("template-{}", cell.number))
            .unwrap_or_else(|error| unreachable!("a word and a number make a cell name: {error}"));
        let limits = Limits::default();
        // The wall time limit is to end set-up that takes too long, and to be what is told.
        let patience = Duration::from_millis(limits.wall_time_ms) + BIRTH_PATIENCE;
        let options = CellOptions { limits, backend, ..CellOptions::new(name) };
        self.configure(cell, options, Scope::Template)?;
        let mut source = String::new();
        for module in imports.names() {
            source.push_str("import ");
            source.push_str(module);
            source.push('\n');
        }
        let serving = (|| {
            for source in [source.as_str(), setup] {
                let operation = cell.exec(source, &Patience::default())?;
                cell.result(&operation, Some(patience), "set-up")?;
            }
            Ok(())
        })();
        serving.map_err(|error| {
            cell.condemn(Death::Killed);
            SpawnError::Setup(error)
        })
    }
}

impl Template {
    /// The backend of its cells.
    #[must_use]
    pub fn backend(&self) -> Backend {
        match &self.source {
            Source::Zygote { .. } => Backend::Process,
            Source::Snapshot { .. } => Backend::Microvm,
        }
    }

    pub(crate) fn spawn(
        &self,
        inner: &Inner,
        options: CellOptions,
    ) -> Result<Arc<CellShared>, SpawnError> {
        let (its, asked) = (self.backend(), options.backend);
        if its != asked {
            return Err(SpawnError::TemplateOfAnother(its.as_str(), asked.as_str()));
        }
        let cell = match &self.source {
            Source::Zygote { zygote, .. } => inner.make(zygote, None),
            Source::Snapshot { base, snapshot } => {
                base.check(snapshot, &options.limits)?;
                inner.make_machine(&base.vmm, snapshot, Sharing::Private)
            }
        };
        let made = cell.and_then(|cell| {
            inner.configure(&cell, options, Scope::Cell)?;
            Ok(cell)
        });
        made.map_err(|error| match &self.source {
            Source::Zygote { zygote, .. } => match zygote.ended() {
                Some(why) => SpawnError::TemplateGone(why.to_owned()),
                None => error,
            },
            Source::Snapshot { .. } => error,
        })
    }

    /// Whether cells can still be made of it.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        let serves = match &self.source {
            Source::Zygote { zygote, .. } => !zygote.is_gone(),
            Source::Snapshot { .. } => true,
        };
        serves && self.supervisor.strong_count() > 0
    }
}
