//! TLS settings of stores, from PEM files. ring does the cryptography; nothing of the process-wide defaults of rustls
//! is used or set, because the host program may have its own.

use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use crate::config::Config;
use crate::error::{Code, Error, Result};

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
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| bad("TLS versions", &e))?
            .with_root_certificates(self.roots()?);
        let Some((certificate, key)) = &self.identity else {
            return Ok(builder.with_no_client_auth());
        };
        let chain: std::result::Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificate).collect();
        let chain = chain.map_err(|e| bad("MC_METADATA_CERT_FILE", &e))?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|e| bad("MC_METADATA_KEY_FILE", &e))?;
        builder.with_client_auth_cert(chain, key).map_err(|e| bad("the client's certificate", &e))
    }

    fn roots(&self) -> Result<RootCertStore> {
        let mut roots = RootCertStore::empty();
        match &self.authorities {
            Some(pem) => {
                for certificate in CertificateDer::pem_slice_iter(pem) {
                    let certificate = certificate.map_err(|e| bad("MC_METADATA_CA_FILE", &e))?;
                    roots.add(certificate).map_err(|e| bad("MC_METADATA_CA_FILE", &e))?;
                }
            }
            None => drop(roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs)),
        }
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

fn bad(what: &str, error: &dyn std::fmt::Display) -> Error {
    Error::invalid(format!("{what} cannot be used: {error}"))
}
