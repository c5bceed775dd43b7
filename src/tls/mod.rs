//! TLS between engines: both ends of a connection show a certificate of an authority of the cluster before either believes a byte
//! of the other, and what they say is encrypted. Off unless `MC_TLS_CA_FILE`, `MC_TLS_CERT_FILE` and `MC_TLS_KEY_FILE` are set.
//!
//! Any certificate of the authorities makes its owner one of the cluster; names count with `MC_TLS_NAMES` only, because engines are
//! found by what stores and descriptors say. The ports are told apart by ALPN, so that nobody in the middle can lead a
//! connection that is meant for one of them to the other.

mod ends;
pub mod pem;
mod settings;
pub mod stream;

use std::fmt;
use std::io;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ServerConfig, ServerConnection};

use crate::config::Config;
use crate::error::{Class, Code, Error};
use ends::Ends;
pub use settings::settle;

/// Bytes by which a client's first message is told from a request without TLS; see [`is_hello`].
pub const HELLO_LEN: usize = 6;

/// Which port a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    /// The handshake port.
    Handshake,
    /// The data port of TCP.
    Data,
}

/// The two ends for one port.
struct Pair {
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
}

impl Pair {
    fn new(ends: &Ends, word: &[u8]) -> Self {
        let (mut client, mut server) = (ends.client.clone(), ends.server.clone());
        client.alpn_protocols = vec![word.to_vec()];
        server.alpn_protocols = vec![word.to_vec()];
        Pair { client: client.into(), server: server.into() }
    }
}

/// How engines secure what they say to each other.
pub struct Tls {
    /// For the handshake port and the data port; `None`: nobody passes.
    pairs: Option<[Pair; 2]>,
    /// Peers without TLS are refused.
    pub required: bool,
    names: bool,
}

impl Tls {
    /// That of `config`, which [`settle`] has seen; `None`: this engine uses no TLS. With files that cannot be used nobody
    /// is believed.
    pub fn of(config: &Config) -> Option<Arc<Self>> {
        let files = [&config.tls_ca_file, &config.tls_cert_file, &config.tls_key_file];
        if files.iter().all(|file| file.is_none()) {
            return None;
        }
        let pairs = Ends::new(config).ok();
        let pairs = pairs.map(|ends| [Pair::new(&ends, b"mte-handshake"), Pair::new(&ends, b"mte-data")]);
        Some(Arc::new(Tls { pairs, required: config.tls_required.unwrap_or(true), names: config.tls_names }))
    }

    fn pair(&self, port: Port) -> Result<&Pair, Distrust> {
        let pairs = self.pairs.as_ref().ok_or(Distrust::Unread)?;
        Ok(&pairs[usize::from(port == Port::Data)])
    }

    /// The client's side of one connection to `host`.
    #[cfg(test)]
    pub(crate) fn client(&self, port: Port, host: &str) -> Result<rustls::ClientConnection, Distrust> {
        let client = rustls::ClientConnection::new(self.pair(port)?.client.clone(), self.name(host)?);
        client.map_err(|e| Distrust::of_tls(&e))
    }

    /// The server's side of one connection.
    pub fn server(&self, port: Port) -> Result<ServerConnection, Distrust> {
        ServerConnection::new(self.pair(port)?.server.clone()).map_err(|e| Distrust::of_tls(&e))
    }

    /// The name that a certificate of `host` has to have, or one that nobody looks at.
    fn name(&self, host: &str) -> Result<ServerName<'static>, Distrust> {
        let host = if self.names { host } else { "engine" };
        let name = ServerName::try_from(host.to_string());
        name.map_err(|_| {
            Distrust::Certificate(format!("cannot name '{host}', which is no host name (MC_TLS_NAMES)"))
        })
    }
}

/// Whether `bytes`, the first of a connection, begin TLS; `None`: they are too few to tell. A handshake frame that begins so would be a
/// terabyte long, and so would be what a request at the data port asks for.
pub fn is_hello(bytes: &[u8]) -> Option<bool> {
    // Record of type handshake, version 3.x, its length, message of type ClientHello.
    let expected = [Some(0x16), Some(3), None, None, None, Some(1)];
    let mut pairs = bytes.iter().zip(expected);
    match pairs.all(|(byte, expected)| expected.is_none_or(|expected| *byte == expected)) {
        true => (bytes.len() >= HELLO_LEN).then_some(true),
        false => Some(false),
    }
}

/// Why the other end is not believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Distrust {
    /// It says other words than those of TLS.
    #[error("it does not use TLS: give it MC_TLS_CA_FILE, MC_TLS_CERT_FILE and MC_TLS_KEY_FILE, or set MC_TLS_REQUIRED=0 until every engine has them")]
    Plain,
    /// It hung up. With the errno, if there is one.
    #[error("it hung up when TLS began: it does not use TLS, or stops, or has too many connections; see MC_TLS_CA_FILE and MC_TLS_REQUIRED")]
    HungUp(Option<i32>),
    /// What is wrong with its certificate.
    #[error("its certificate {0}")]
    Certificate(String),
    /// It does not believe this end; in the words of TLS.
    #[error("it does not take the certificate of this side ({0}): MC_TLS_CERT_FILE has to be valid, and of an authority in the peer's MC_TLS_CA_FILE")]
    Refused(String),
    /// TLS fails otherwise.
    #[error("TLS with it fails: {0}; does something else answer in its place?")]
    Broken(String),
    /// The files of this end were never read.
    #[error("MC_TLS_CA_FILE, MC_TLS_CERT_FILE and MC_TLS_KEY_FILE of this side were not read")]
    Unread,
}

/// The other end says so of the certificate of this side.
fn is_about_certificates(alert: rustls::AlertDescription) -> bool {
    use rustls::AlertDescription::{
        AccessDenied, BadCertificate, CertificateExpired, CertificateRequired, CertificateRevoked,
        CertificateUnknown, DecryptError, UnknownCA, UnsupportedCertificate,
    };
    matches!(
        alert,
        AccessDenied
            | BadCertificate
            | CertificateExpired
            | CertificateRequired
            | CertificateRevoked
            | CertificateUnknown
            | DecryptError
            | UnknownCA
            | UnsupportedCertificate
    )
}

impl Distrust {
    /// What an error of a stream says about TLS, if it does.
    pub fn of(error: &io::Error) -> Option<Self> {
        error.get_ref().and_then(|inner| inner.downcast_ref()).map(Self::of_tls)
    }

    /// As [`Distrust::of`], of an error while TLS begins: then somebody who hangs up may be one who does not know it.
    pub fn of_beginning(error: &io::Error) -> Option<Self> {
        use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
        Self::of(error).or_else(|| match error.kind() {
            BrokenPipe | ConnectionReset | UnexpectedEof => Some(Distrust::HungUp(error.raw_os_error())),
            _ => None,
        })
    }

    fn of_tls(error: &rustls::Error) -> Self {
        match error {
            rustls::Error::InvalidCertificate(fault) => Distrust::Certificate(ends::said(fault)),
            rustls::Error::NoCertificatesPresented => Distrust::Certificate("is missing".into()),
            rustls::Error::AlertReceived(alert) if is_about_certificates(*alert) => {
                Distrust::Refused(format!("{alert:?}"))
            }
            rustls::Error::InvalidMessage(_) => Distrust::Plain,
            other => Distrust::Broken(other.to_string()),
        }
    }

    /// The error of a call to `peer`.
    pub fn error(&self, peer: impl fmt::Display) -> Error {
        let text = format!("{peer} is not believed: {self}");
        match self {
            Distrust::HungUp(errno) => match errno.map(io::Error::from_raw_os_error) {
                Some(error) => Error::io(Code::Socket, text, &error),
                None => Error::new(Code::Socket, text),
            },
            Distrust::Plain | Distrust::Broken(_) => {
                Error::new(Code::RejectHandshake, text).permanent(Class::Protocol)
            }
            Distrust::Certificate(_) | Distrust::Refused(_) | Distrust::Unread => {
                Error::new(Code::RejectHandshake, text).permanent(Class::Rejected)
            }
        }
    }

    /// The other end may be one that does not know TLS.
    pub fn may_be_plain(&self) -> bool {
        matches!(self, Distrust::Plain | Distrust::HungUp(_))
    }
}

#[cfg(test)]
pub(crate) mod certificates;
#[cfg(test)]
mod tests;
