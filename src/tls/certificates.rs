//! Certificates for tests of this crate.

use std::sync::{Arc, OnceLock};

use rustls::client::WebPkiServerVerifier;
use rustls::version::TLS13;
use rustls::ClientConfig;

use super::{pem, Tls};
use crate::config::{Config, Pem};

#[allow(unreachable_pub)]
#[path = "../../tests/common/certificates.rs"]
mod made;

/// Whose certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    One,
    Two,
    Foreign,
    Expired,
    Elsewhere,
    /// No certificate.
    Nobody,
}

/// Certificates and keys, made once, and in no file any more.
pub(crate) struct Set(Vec<(&'static str, Vec<u8>)>);

impl Set {
    pub(crate) fn get() -> &'static Self {
        static SET: OnceLock<Set> = OnceLock::new();
        SET.get_or_init(|| {
            let folder = std::env::temp_dir().join(format!("te-certificates-{}", std::process::id()));
            made::make(&folder);
            let names = ["good.pem", "bad.pem", "one.pem", "one.key", "two.pem", "two.key", "foreign.pem"];
            let names = names.into_iter().chain(["foreign.key", "expired.pem", "expired.key"]);
            let names = names.chain(["elsewhere.pem", "elsewhere.key"]);
            let set = names.map(|name| (name, std::fs::read(folder.join(name)).unwrap())).collect();
            std::fs::remove_dir_all(&folder).unwrap();
            Set(set)
        })
    }

    pub(crate) fn text(&self, name: &str) -> &[u8] {
        &self.0.iter().find(|(found, _)| *found == name).unwrap().1
    }

    fn files(who: Who) -> Option<(&'static str, &'static str)> {
        match who {
            Who::One => Some(("one.pem", "one.key")),
            Who::Two => Some(("two.pem", "two.key")),
            Who::Foreign => Some(("foreign.pem", "foreign.key")),
            Who::Expired => Some(("expired.pem", "expired.key")),
            Who::Elsewhere => Some(("elsewhere.pem", "elsewhere.key")),
            Who::Nobody => None,
        }
    }

    /// The settings of an engine, with files that were read.
    pub(crate) fn config(&self, who: Who, authority: &str) -> Config {
        let file = |name: &str| Some(Pem { path: name.into(), text: Some(self.text(name).to_vec()) });
        let (certificate, key) = Self::files(who).unwrap();
        Config {
            tls_ca_file: file(authority),
            tls_cert_file: file(certificate),
            tls_key_file: file(key),
            ..Config::default()
        }
    }

    /// An engine of the cluster.
    pub(crate) fn tls(&self, who: Who) -> Arc<Tls> {
        Tls::of(&self.config(who, "good.pem")).unwrap()
    }

    /// A client that is no engine, and shows what an engine would not start with.
    pub(crate) fn stranger(&self, who: Who) -> ClientConfig {
        let roots = pem::authorities(self.text("good.pem"), "the authority").unwrap();
        let verifier =
            WebPkiServerVerifier::builder_with_provider(roots.into(), pem::provider()).build().unwrap();
        let builder = ClientConfig::builder_with_provider(pem::provider())
            .with_protocol_versions(&[&TLS13])
            .unwrap()
            .with_webpki_verifier(verifier);
        let Some((certificate, key)) = Self::files(who) else { return builder.with_no_client_auth() };
        let chain = pem::certificates(self.text(certificate), "it").unwrap();
        // Shown whatever authorities the server names, as somebody would who tries.
        builder.with_client_auth_cert(chain, pem::key(self.text(key), "it").unwrap()).unwrap()
    }
}
