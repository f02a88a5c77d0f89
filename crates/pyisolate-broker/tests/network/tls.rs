//! HTTPS: who the server is gets checked, and nothing can leave that out.

use std::io::Write;
use std::sync::Arc;

use crate::servers::*;
use pyisolate_broker::Session;
use pyisolate_policy::Scheme;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection};

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn root(&self) -> Vec<u8> {
        self.0.der().to_vec()
    }

    /// A server with a certificate for this name.
    fn server(&self, name: &str, says_goodbye: bool) -> Server {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        let config = Arc::new(config);
        Server::new(move |mut socket| {
            let mut tls = ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut stream = rustls::Stream::new(&mut tls, &mut socket);
            if Asked::read(&mut stream).is_some() {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nhello over TLS");
                if says_goodbye {
                    tls.send_close_notify();
                }
                while tls.wants_write() && tls.write_tls(&mut socket).is_ok() {}
                farewell(&socket);
            }
        })
    }
}

fn session(server: &Server, roots: Vec<Vec<u8>>) -> Arc<Session> {
    let names = Names::new(&[("tls.example", &[&["127.0.0.1"]]), ("b.example", &[&["127.0.0.1"]])]);
    let grant = |host| http(Some(Scheme::Https), host, server.port, "/");
    let mut cell = Cell::new([grant("tls.example"), grant("b.example"), grant("127.0.0.1")]);
    cell.names = Some(names);
    cell.roots = Some(roots);
    cell.session()
}

fn url(server: &Server, host: &str) -> String {
    format!("https://{host}:{}/", server.port)
}

#[test]
fn a_server_that_proves_its_name_is_talked_to() {
    let authority = Authority::new();
    let server = authority.server("tls.example", true);
    let session = session(&server, vec![authority.root()]);
    let answer = get(&session, &url(&server, "TLS.example")).unwrap();
    assert_eq!(answer.body(&session).unwrap(), b"hello over TLS");
    // By its address it is somebody else, and so is another name at the same address.
    for host in ["127.0.0.1", "b.example"] {
        let failure = failed(get(&session, &url(&server, host)));
        assert!(failure.message.contains("certificate"), "{failure:?}");
    }
    let by_address = authority.server("127.0.0.1", true);
    let session = self::session(&by_address, vec![authority.root()]);
    get(&session, &url(&by_address, "0x7f.1")).unwrap();
}

#[test]
fn a_stranger_is_not_talked_to() {
    let stranger = Authority::new();
    let server = stranger.server("tls.example", true);
    let roots = vec![Authority::new().root()];
    let failure = failed(get(&session(&server, roots), &url(&server, "tls.example")));
    assert!(failure.message.contains("TLS: invalid peer certificate"), "{failure:?}");
    let failure = failed(get(&session(&server, vec![]), &url(&server, "tls.example")));
    assert!(failure.message.contains("TLS: invalid peer certificate"), "{failure:?}");
}

#[test]
fn an_answer_that_is_cut_off_is_no_whole_answer() {
    let authority = Authority::new();
    let server = authority.server("tls.example", false);
    let session = session(&server, vec![authority.root()]);
    let body = get(&session, &url(&server, "tls.example")).and_then(|a| a.body(&session));
    assert!(failed(body).message.starts_with("[Errno 71] Protocol error: "));
}

#[test]
fn what_is_no_tls_is_an_error() {
    let server = Server::http(|_| ok("plain"));
    let session = session(&server, vec![]);
    // The plain server waits for a line end, so it closes first.
    let plain = Server::new(|mut stream| {
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        farewell(&stream);
    });
    session.set_policy(policy(&[http(None, "127.0.0.1", plain.port, "/")]));
    let failure = failed(get(&session, &url(&plain, "127.0.0.1")));
    assert!(failure.message.starts_with("[Errno 71] "), "{failure:?}");
}
