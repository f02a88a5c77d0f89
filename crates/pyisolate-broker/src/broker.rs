//! What all cells of one supervisor share.

use std::sync::Arc;

use crate::ipc::Channels;
use crate::network::{Resolve, Tls};
use crate::subprocess::Run;

/// What a broker is made with.
#[derive(Debug, Default)]
pub struct BrokerOptions {
    /// Who finds the addresses of names; the system if `None`.
    pub resolver: Option<Arc<dyn Resolve>>,
    /// Who starts programs; nobody if `None`, and `subprocess.run` fails.
    pub runner: Option<Arc<dyn Run>>,
    /// The root certificates, in DER, that HTTPS servers are checked against; the system's if `None`.
    pub tls_roots: Option<Vec<Vec<u8>>>,
}

/// Answers the requests of all cells of one supervisor.
#[derive(Debug)]
pub struct Broker {
    pub(crate) resolver: Arc<dyn Resolve>,
    pub(crate) runner: Option<Arc<dyn Run>>,
    pub(crate) channels: Channels,
    pub(crate) tls: Tls,
}

impl Broker {
    /// Makes a broker.
    #[must_use]
    pub fn new(options: BrokerOptions) -> Self {
        Self {
            resolver: options.resolver.unwrap_or_else(|| Arc::new(crate::network::SystemResolver)),
            runner: options.runner,
            channels: Channels::default(),
            tls: Tls::new(options.tls_roots),
        }
    }
}
