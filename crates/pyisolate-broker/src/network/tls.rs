//! TLS for the broker's own requests. There is no way to leave the check of certificates out.

use std::sync::{Arc, OnceLock};

use pyisolate_policy::Host;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use super::line::protocol;
use crate::outcome::Refusal;

/// Whom the broker trusts, read when it is first needed.
#[derive(Debug, Default)]
pub(crate) struct Tls {
    roots: Option<Vec<Vec<u8>>>,
    config: OnceLock<Arc<ClientConfig>>,
}

impl Tls {
    /// With these certificates, in DER, for roots; with the system's if `None`.
    pub(crate) fn new(roots: Option<Vec<Vec<u8>>>) -> Self {
        Self { roots, config: OnceLock::new() }
    }

    /// The beginning of a connection to a host, which has to prove that it is this one.
    pub(super) fn client(&self, host: &Host) -> Result<ClientConnection, Refusal> {
        let name = match host {
            Host::Name(name) => ServerName::try_from(name.clone()).map_err(protocol)?,
            Host::Address(address) => ServerName::from(*address),
        };
        let config = match self.config.get() {
            Some(config) => Arc::clone(config),
            None => {
                let config = self.load()?;
                Arc::clone(self.config.get_or_init(|| Arc::new(config)))
            }
        };
        ClientConnection::new(config, name).map_err(|error| protocol(format_args!("TLS: {error}")))
    }

    fn load(&self) -> Result<ClientConfig, Refusal> {
        let mut store = RootCertStore::empty();
        match &self.roots {
            Some(roots) => {
                let roots = roots.iter().map(|root| CertificateDer::from(root.clone()));
                store.add_parsable_certificates(roots);
            }
            None => {
                // Looks at SSL_CERT_FILE and SSL_CERT_DIR first.
                let system = rustls_native_certs::load_native_certs();
                for error in &system.errors {
                    tracing::warn!(%error, "a root certificate of the system cannot be read");
                }
                store.add_parsable_certificates(system.certs);
                // Whoever chose the roots does not get others in their place.
                let chosen = ["SSL_CERT_FILE", "SSL_CERT_DIR"]
                    .iter()
                    .any(|name| std::env::var_os(name).is_some());
                if store.is_empty() && !chosen {
                    store.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
                }
            }
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| protocol(format_args!("TLS: {error}")))?;
        let mut config = builder.with_root_certificates(store).with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_systems_roots_or_else_mozillas_are_trusted() {
        let tls = Tls::default();
        assert!(tls.client(&"example.org".parse().unwrap()).is_ok());
        assert!(tls.client(&"::1".parse().unwrap()).is_ok());
    }
}
