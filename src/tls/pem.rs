//! Certificates and keys out of PEM texts, for engines and for stores. ring does the cryptography; nothing of the process-wide
//! defaults of rustls is used or set, because the host program may have its own.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::RootCertStore;

use crate::error::{Error, Result};

/// Who does the cryptography.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// The certificates in `pem`. `ERR_INVALID_ARGUMENT` naming the setting `name`.
pub fn certificates(pem: &[u8], name: &str) -> Result<Vec<CertificateDer<'static>>> {
    let read: std::result::Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    read.map_err(|e| bad(name, &e))
}

/// The private key in `pem`. Errors as [`certificates`].
pub fn key(pem: &[u8], name: &str) -> Result<PrivateKeyDer<'static>> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|e| bad(name, &e))
}

/// The authorities in `pem`; none if there are none. Errors as [`certificates`].
pub fn authorities(pem: &[u8], name: &str) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem, name)? {
        roots.add(certificate).map_err(|e| bad(name, &e))?;
    }
    Ok(roots)
}

/// What the setting `name` says is of no use.
pub fn bad(name: &str, error: &dyn std::fmt::Display) -> Error {
    Error::invalid(format!("{name} cannot be used: {error}"))
}
