//! TLS settings of stores, from PEM files.

use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::client::TlsStream;
use tokio_rustls::TlsConnector;

use crate::config::Config;
use crate::error::{Code, Error, Result};
use crate::host_port::HostPort;
use crate::metadata::backend::{refused, unreachable};
use crate::runtime::sockets::Stream;
use crate::tls::pem::{self, bad};

/// How connections to one server are made secure.
pub(super) struct Tls {
    connector: TlsConnector,
    name: ServerName<'static>,
    /// A client's certificate is shown where the server asks for one.
    pub has_identity: bool,
}

impl Tls {
    /// For `server`, whose certificate has to name its host; `store` is what the user wrote, for messages. `ERR_INVALID_ARGUMENT` as [`Files::read`].
    pub(super) fn new(server: &HostPort, store: &str, config: &Config) -> Result<Self> {
        let name = ServerName::try_from(server.host.clone());
        let name = name.map_err(|e| Error::invalid(format!("metadata store '{store}': {e}")))?;
        let files = Files::read(config)?;
        let connector = TlsConnector::from(Arc::new(files.client()?));
        Ok(Tls { connector, name, has_identity: files.identity.is_some() })
    }

    /// Makes a connection secure. A peer that cannot be trusted, or speaks something else, is no reason to try again.
    pub(super) async fn connect(&self, stream: Stream, server: &HostPort) -> Result<TlsStream<Stream>> {
        let secured = self.connector.connect(self.name.clone(), stream).await;
        secured.map_err(|error| {
            let text = format!("TLS with {server}: {error}");
            match failure(&error) {
                Some(rustls::Error::InvalidCertificate(_)) => {
                    refused(format!("{text}; MC_METADATA_CA_FILE says which authorities are trusted"))
                }
                Some(_) => refused(format!("{text}; does that port speak TLS?")),
                None => unreachable(text),
            }
        })
    }
}

/// What is wrong with TLS, if an error of a connection is about that.
pub(super) fn failure(error: &std::io::Error) -> Option<&rustls::Error> {
    error.get_ref().and_then(|inner| inner.downcast_ref())
}

/// The files that the settings name, read.
#[derive(Default)]
pub(super) struct Files {
    /// Authorities to trust; `None`: the system's.
    pub authorities: Option<Vec<u8>>,
    /// The client's certificate and key.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
}

impl Files {
    /// Reads the files; `ERR_INVALID_ARGUMENT` naming the setting if one cannot be read, or only one of certificate and
    /// key is given.
    pub(super) fn read(config: &Config) -> Result<Self> {
        let authorities = read(&config.metadata_ca_file, "MC_METADATA_CA_FILE")?;
        let certificate = read(&config.metadata_cert_file, "MC_METADATA_CERT_FILE")?;
        let key = read(&config.metadata_key_file, "MC_METADATA_KEY_FILE")?;
        let identity = match (certificate, key) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            _ => {
                return Err(Error::invalid(
                    "set both MC_METADATA_CERT_FILE and MC_METADATA_KEY_FILE, or none",
                ))
            }
        };
        Ok(Files { authorities, identity })
    }

    /// A client's settings for https.
    pub(super) fn client(&self) -> Result<ClientConfig> {
        let builder = ClientConfig::builder_with_provider(pem::provider())
            .with_safe_default_protocol_versions()
            .map_err(|e| bad("TLS versions", &e))?
            .with_root_certificates(self.roots()?);
        let Some((certificate, key)) = &self.identity else {
            return Ok(builder.with_no_client_auth());
        };
        let chain = pem::certificates(certificate, "MC_METADATA_CERT_FILE")?;
        let key = pem::key(key, "MC_METADATA_KEY_FILE")?;
        builder.with_client_auth_cert(chain, key).map_err(|e| bad("the client's certificate", &e))
    }

    fn roots(&self) -> Result<RootCertStore> {
        let roots = match &self.authorities {
            Some(text) => pem::authorities(text, "MC_METADATA_CA_FILE")?,
            None => {
                let mut roots = RootCertStore::empty();
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
                roots
            }
        };
        if roots.is_empty() {
            return Err(Error::invalid("no authority to trust: set MC_METADATA_CA_FILE to a PEM file"));
        }
        Ok(roots)
    }
}

fn read(path: &Option<String>, setting: &str) -> Result<Option<Vec<u8>>> {
    let Some(path) = path else { return Ok(None) };
    let read = std::fs::read(path);
    read.map(Some).map_err(|e| Error::io(Code::InvalidArgument, format!("{setting}={path}"), &e))
}
