//! What rustls is told for both ends of a connection between engines.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name, Resumption};
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature, CryptoProvider};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier};
use rustls::version::TLS13;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme,
};

use super::pem;
use crate::config::{Config, Pem};
use crate::error::{Error, Result};

/// Settings, by name.
pub(super) const CA: &str = "MC_TLS_CA_FILE";
pub(super) const CERT: &str = "MC_TLS_CERT_FILE";
pub(super) const KEY: &str = "MC_TLS_KEY_FILE";

/// Both ends. TLS 1.3 only: no engine knows an older one. Sessions are not resumed, so that each connection shows its
/// certificates anew.
pub(super) struct Ends {
    pub client: ClientConfig,
    pub server: ServerConfig,
}

impl Ends {
    /// Those of files that were read. `ERR_INVALID_ARGUMENT` naming the setting that is of no use, and what to do.
    pub(super) fn new(config: &Config) -> Result<Self> {
        let provider = pem::provider();
        let roots = Arc::new(pem::authorities(text(&config.tls_ca_file, CA)?, CA)?);
        if roots.is_empty() {
            return Err(Error::invalid(format!(
                "{CA} has no certificate; is it a PEM file of the authority?"
            )));
        }
        let chain = pem::certificates(text(&config.tls_cert_file, CERT)?, CERT)?;
        let key = pem::key(text(&config.tls_key_file, KEY)?, KEY)?;
        let member =
            Arc::new(Member { roots: roots.clone(), provider: provider.clone(), names: config.tls_names });
        let clients = WebPkiClientVerifier::builder_with_provider(roots, provider.clone()).build();
        let clients = clients.map_err(|e| pem::bad(CA, &e))?;
        member.judge_own(&chain, &*clients)?;
        let pair = |e: &rustls::Error| {
            Error::invalid(format!("{KEY} is not the key of the certificate in {CERT}: {e}"))
        };
        let mut client = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&TLS13])
            .map_err(|e| pem::bad("TLS 1.3", &e))?
            .dangerous()
            .with_custom_certificate_verifier(member)
            .with_client_auth_cert(chain.clone(), key.clone_key())
            .map_err(|e| pair(&e))?;
        // The name would tell a listener whom this end takes the other one for.
        client.enable_sni = false;
        client.resumption = Resumption::disabled();
        let mut server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .map_err(|e| pem::bad("TLS 1.3", &e))?
            .with_client_cert_verifier(clients)
            .with_single_cert(chain, key)
            .map_err(|e| pair(&e))?;
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        Ok(Ends { client, server })
    }
}

fn text<'a>(file: &'a Option<Pem>, name: &str) -> Result<&'a [u8]> {
    let text = file.as_ref().and_then(|file| file.text.as_deref());
    text.ok_or_else(|| Error::invalid(format!("{name} was not read")))
}

/// Takes whoever has a certificate of the authorities for one of the cluster, under whatever name, unless names count.
#[derive(Debug)]
struct Member {
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
    names: bool,
}

impl Member {
    fn chains(
        &self,
        end: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> std::result::Result<(), rustls::Error> {
        let end = ParsedCertificate::try_from(end)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&end, &self.roots, between, now, algorithms)
    }

    /// An engine that every peer would refuse does not start.
    fn judge_own(&self, chain: &[CertificateDer<'_>], clients: &dyn ClientCertVerifier) -> Result<()> {
        let Some((end, between)) = chain.split_first() else {
            return Err(Error::invalid(format!("{CERT} has no certificate; is it a PEM file?")));
        };
        let now = UnixTime::now();
        let judged = self.chains(end, between, now);
        let judged = judged.and_then(|()| clients.verify_client_cert(end, between, now).map(drop));
        judged.map_err(|error| match error {
            rustls::Error::InvalidCertificate(fault) => {
                Error::invalid(format!("the certificate in {CERT} {}", said(&fault)))
            }
            error => pem::bad(CERT, &error),
        })
    }
}

/// What is wrong with a certificate, behind the words for it.
pub(super) fn said(fault: &CertificateError) -> String {
    use CertificateError::*;
    match fault {
        Expired | ExpiredContext { .. } => "has expired: make a new one; or is the clock wrong?".into(),
        NotValidYet | NotValidYetContext { .. } => "is not valid yet; is the clock wrong?".into(),
        UnknownIssuer | BadSignature => {
            format!("is of no authority in {CA}, or what lies between is missing behind it in {CERT}")
        }
        InvalidPurpose | InvalidPurposeContext { .. } => {
            "is not for both ends: its extended key usage, if it has one, has to list serverAuth and clientAuth".into()
        }
        NotValidForName | NotValidForNameContext { .. } => {
            "does not name the host by which the peer is known here, as MC_TLS_NAMES=1 asks for".into()
        }
        other => format!("cannot be used: {other}"),
    }
}

impl ServerCertVerifier for Member {
    fn verify_server_cert(
        &self,
        end: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        self.chains(end, between, now)?;
        if self.names {
            verify_server_name(&ParsedCertificate::try_from(end)?, name)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
