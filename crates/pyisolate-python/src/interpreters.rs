//! How the supervisor makes cells in sub-interpreters: by the crate that drives CPython.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pyisolate_subinterpreter::{Cell, Census, Ended, ThreadJail, Trees};
use pyisolate_supervisor::{
    Environment, GuestFds, Interpreter, InterpreterEnd, InterpreterError, Interpreters, OnEnd,
};

/// Makes cells in this process, all behind the same kind of wall, which is prepared with the first.
#[derive(Debug)]
pub(crate) struct InThisProcess {
    environment: Environment,
    trees: Arc<Trees>,
    census: Arc<Census>,
    jail: Mutex<Option<Arc<ThreadJail>>>,
}

/// What makes sub-interpreter cells in this process.
pub(crate) fn make(environment: &Environment) -> Arc<dyn Interpreters> {
    Arc::new(InThisProcess::new(environment.clone()))
}

impl InThisProcess {
    fn new(environment: Environment) -> Self {
        let trees = Trees {
            packages: environment.packages().to_vec(),
            extensions: environment.extensions(),
        };
        Self { environment, trees: Arc::new(trees), census: Arc::default(), jail: Mutex::default() }
    }

    fn jail(&self) -> Result<Arc<ThreadJail>, InterpreterError> {
        let mut jail = self.jail.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(jail) = &*jail {
            return Ok(Arc::clone(jail));
        }
        let prepared = Arc::new(ThreadJail::prepare(
            &self.environment.root_plan()?,
            self.environment.venv_config(),
        )?);
        Ok(Arc::clone(jail.insert(prepared)))
    }
}

impl Interpreters for InThisProcess {
    fn start(
        &self,
        fds: GuestFds,
        on_end: OnEnd,
    ) -> Result<Box<dyn Interpreter>, InterpreterError> {
        let cell = Cell::start(
            fds,
            self.jail()?,
            Arc::clone(&self.trees),
            Arc::clone(&self.census),
            on_end,
        )?;
        Ok(Box::new(Tenant(cell)))
    }

    fn close(&self, patience: Duration) {
        self.census.close(patience);
    }
}

#[derive(Debug)]
struct Tenant(Cell);

impl Interpreter for Tenant {
    fn stop(&self) {
        self.0.stop();
    }

    fn ended(&self) -> Option<InterpreterEnd> {
        Some(match self.0.ended()? {
            Ended::Stopped => InterpreterEnd::Stopped,
            Ended::OutOfMemory => InterpreterEnd::OutOfMemory,
            Ended::ThreadKilled => InterpreterEnd::ThreadKilled,
            Ended::Abandoned => InterpreterEnd::Abandoned,
            _ => InterpreterEnd::Failed,
        })
    }

    fn cpu_ms(&self) -> u64 {
        self.0.cpu_ms()
    }

    fn open_files(&self) -> Option<u64> {
        self.0.open_files()
    }

    fn memory_bytes(&self) -> u64 {
        self.0.memory_bytes()
    }
}
