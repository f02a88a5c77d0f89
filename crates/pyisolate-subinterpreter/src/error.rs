//! Why a guest could not be started.

use pyisolate_jail::ThreadError;

/// Why a sub-interpreter cell could not be started. Nothing is left behind.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// There is no CPython in this process.
    #[error("this process has no CPython that was initialised: use the process backend")]
    NoInterpreter,
    /// A CPython whose interpreters this crate does not know.
    #[error(
        "CPython {0} is not known to work: sub-interpreter cells need 3.13 or 3.14, with a GIL"
    )]
    Version(String),
    /// The supervisor is shut down.
    #[error("the supervisor is shut down")]
    Closed,
    /// No thread.
    #[error("starting a thread failed")]
    Thread(#[source] std::io::Error),
    /// The thread's wall.
    #[error("confining the thread failed")]
    Confine(#[from] ThreadError),
    /// The thread ended before it was confined.
    #[error("the thread ended before it was confined")]
    Died,
}
