//! Logins, passwords and certificates.

use std::sync::Arc;
use std::time::{Duration, Instant};

use transfer_engine::error::{Class, Code};

use crate::node::Node;
use crate::servers::{http, Kind, Server};
use crate::special::{elsewhere, refusal};

#[test]
fn a_wrong_redis_password_is_refused_and_the_right_one_works() {
    let name = "security::a_wrong_redis_password_is_refused_and_the_right_one_works";
    let settings = [("MC_REDIS_PASSWORD", "wrong"), ("MC_REDIS_DB_INDEX", "3")];
    if elsewhere(name, &settings) {
        return;
    }
    let server = Server::with(Kind::Redis, &["--requirepass", "right"]);
    let begun = Instant::now();
    let error = refusal(&server.url());
    assert_eq!((error.code(), error.kind()), (Code::Metadata, Class::Rejected), "{error}");
    assert!(error.text().contains("MC_REDIS_PASSWORD") && !error.text().contains("wrong"), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(2), "a refusal is not tried again");
    std::env::set_var("MC_REDIS_PASSWORD", "right");
    let node = Node::start(&server.url(), "a");
    let client = redis::Client::open(format!("redis://:right@127.0.0.1:{}/3", server.port())).unwrap();
    let mut connection = client.get_connection().unwrap();
    let keys: Vec<String> = redis::cmd("KEYS").arg("*").query(&mut connection).unwrap();
    assert_eq!(keys.len(), 2, "in database 3: {keys:?}");
    drop(node);
    redis::cmd("ACL").arg(&["SETUSER", "bob", "on", ">his", "~*", "+@all"]).exec(&mut connection).unwrap();
    std::env::set_var("MC_REDIS_USERNAME", "bob");
    assert!(refusal(&server.url()).text().contains("MC_REDIS_USERNAME"), "another user's password");
    std::env::set_var("MC_REDIS_PASSWORD", "his");
    drop(Node::start(&server.url(), "a"));
}

#[test]
fn a_store_that_asks_for_a_token_is_used_with_it_only() {
    let name = "security::a_store_that_asks_for_a_token_is_used_with_it_only";
    if elsewhere(name, &[]) {
        return;
    }
    let server = Server::with(Kind::Mte, &["--token", "open sesame"]);
    let begun = Instant::now();
    for (token, word) in
        [(None, "asks for a token"), (Some("open"), "does not take"), (Some("open sesamf"), "does not")]
    {
        token.map_or_else(
            || std::env::remove_var("MC_METADATA_HTTP_TOKEN"),
            |token| std::env::set_var("MC_METADATA_HTTP_TOKEN", token),
        );
        let error = refusal(&server.url());
        assert_eq!((error.code(), error.kind()), (Code::Metadata, Class::Rejected), "{error}");
        assert!(error.text().contains("MC_METADATA_HTTP_TOKEN") && error.text().contains(word), "{error}");
        assert!(!error.text().contains("sesam"), "{error}");
    }
    assert!(begun.elapsed() < Duration::from_secs(2), "a refusal is not tried again");
    std::env::set_var("MC_METADATA_HTTP_TOKEN", "a\nb");
    let error = refusal(&server.url());
    assert_eq!(error.code(), Code::InvalidArgument, "{error}");
    assert!(error.text().contains("MC_METADATA_HTTP_TOKEN") && !error.text().contains("a\nb"), "{error}");
    std::env::set_var("MC_METADATA_HTTP_TOKEN", "open sesame");
    let (a, b) = (Node::start(&server.url(), "a"), Node::start(&server.url(), "b"));
    let target = a.engine.open_segment("b").unwrap();
    a.exchange_with(&b, target, 1).unwrap();
    // Strangers neither read nor change it, and are told so although they bring a body.
    for method in ["GET", "PUT", "DELETE"] {
        let (status, _) =
            http(server.port(), method, "/metadata?key=mooncake%2Fram%2Fb", &[b'x'; 300_000]).unwrap();
        assert_eq!(status, 401, "{method}");
    }
    a.engine.sync_segments();
    a.exchange_with(&b, target, 2).unwrap();
    // Its own claims are given back with it too.
    drop((a, b));
    drop(Node::start(&server.url(), "a"));
}

#[test]
fn a_wrong_etcd_password_is_refused_and_the_right_one_works() {
    let name = "security::a_wrong_etcd_password_is_refused_and_the_right_one_works";
    if elsewhere(name, &[("MC_ETCD_USERNAME", "root"), ("MC_ETCD_PASSWORD", "wrong")]) {
        return;
    }
    let server = Server::start(Kind::Etcd);
    for (path, body) in [
        ("/v3/auth/user/add", r#"{"name":"root","password":"right"}"#),
        ("/v3/auth/role/add", r#"{"name":"root"}"#),
        ("/v3/auth/user/grant", r#"{"user":"root","role":"root"}"#),
        ("/v3/auth/enable", "{}"),
    ] {
        assert_eq!(http(server.port(), "POST", path, body.as_bytes()).unwrap().0, 200, "{path}");
    }
    let begun = Instant::now();
    let error = refusal(&server.url());
    assert_eq!((error.code(), error.kind()), (Code::Metadata, Class::Rejected), "{error}");
    assert!(error.text().contains("MC_ETCD_PASSWORD") && !error.text().contains("wrong"), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(2), "a refusal is not tried again");
    std::env::set_var("MC_ETCD_PASSWORD", "right");
    let (a, b) = (Node::start(&server.url(), "a"), Node::start(&server.url(), "b"));
    a.exchange_with(&b, a.engine.open_segment("b").unwrap(), 1).unwrap();
    std::env::remove_var("MC_ETCD_USERNAME");
    let error = refusal(&server.url());
    assert!(error.text().contains("MC_ETCD_USERNAME"), "{error}");
}

/// A folder with certificates.
fn certificates() -> std::path::PathBuf {
    let folder = std::env::temp_dir().join(format!("te-store-tls-{}", std::process::id()));
    crate::common::certificates::make(&folder);
    folder
}

#[test]
fn a_certificate_of_another_authority_is_refused() {
    if elsewhere("security::a_certificate_of_another_authority_is_refused", &[]) {
        return;
    }
    let folder = certificates();
    let file = |name: &str| folder.join(name).display().to_string();
    let etcd = Server::with(
        Kind::Etcd,
        &[&format!("--cert-file={}", file("server.pem")), &format!("--key-file={}", file("server.key"))],
    );
    let mte = Server::start(Kind::Mte);
    let https = tls_before(mte.port(), &file("server.pem"), &file("server.key"));
    for url in [etcd.url(), format!("https://127.0.0.1:{https}/metadata")] {
        std::env::set_var("MC_METADATA_CA_FILE", file("bad.pem"));
        let begun = Instant::now();
        let error = refusal(&url);
        assert_eq!((error.code(), error.kind()), (Code::Metadata, Class::Rejected), "{url}: {error}");
        assert!(error.text().contains("certificate"), "{url}: {error}");
        assert!(begun.elapsed() < Duration::from_secs(2), "{url}: a refusal is not tried again");
        std::env::set_var("MC_METADATA_CA_FILE", file("good.pem"));
        let (a, b) = (Node::start(&url, "a"), Node::start(&url, "b"));
        a.exchange_with(&b, a.engine.open_segment("b").unwrap(), 1).unwrap();
    }
    // Where the server asks for one, a client without a certificate gets nowhere.
    let strict = Server::with(
        Kind::Etcd,
        &[
            &format!("--cert-file={}", file("server.pem")),
            &format!("--key-file={}", file("server.key")),
            &format!("--trusted-ca-file={}", file("good.pem")),
            "--client-cert-auth",
        ],
    );
    assert_eq!(refusal(&strict.url()).code(), Code::Metadata);
    std::env::set_var("MC_METADATA_CERT_FILE", file("client.pem"));
    assert!(refusal(&strict.url()).text().contains("MC_METADATA_KEY_FILE"), "one without the other");
    std::env::set_var("MC_METADATA_KEY_FILE", file("client.key"));
    drop(Node::start(&strict.url(), "a"));
    std::env::set_var("MC_METADATA_CA_FILE", file("absent.pem"));
    assert!(refusal(&etcd.url()).text().contains("MC_METADATA_CA_FILE"));
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn redis_over_tls_is_for_those_who_can_be_trusted() {
    let settings = [("MC_METADATA_TIMEOUT_MS", "2000")];
    if elsewhere("security::redis_over_tls_is_for_those_who_can_be_trusted", &settings) {
        return;
    }
    let folder = certificates();
    let file = |name: &str| folder.join(name).display().to_string();
    let server = |clients: &str| {
        let files = [file("server.pem"), file("server.key"), file("good.pem")];
        let [certificate, key, authority] = &files;
        let words = ["--tls-cert-file", certificate, "--tls-key-file", key, "--tls-ca-cert-file", authority];
        Server::with(Kind::Redis, &[&words[..], &["--tls-auth-clients", clients]].concat())
    };
    let open = server("no");
    std::env::set_var("MC_METADATA_CA_FILE", file("bad.pem"));
    let begun = Instant::now();
    let error = refusal(&open.url());
    assert_eq!((error.code(), error.kind()), (Code::Metadata, Class::Rejected), "{error}");
    assert!(error.text().contains("certificate") && error.text().contains("MC_METADATA_CA_FILE"), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(2), "a refusal is not tried again");

    std::env::set_var("MC_METADATA_CA_FILE", file("good.pem"));
    let (a, b) = (Node::start(&open.url(), "a"), Node::start(&open.url(), "b"));
    a.exchange_with(&b, a.engine.open_segment("b").unwrap(), 1).unwrap();
    drop((a, b));
    let by_name = open.url().replace("127.0.0.1", "localhost");
    drop(Node::start(&by_name, "a"));

    // Each side speaks what the other one does not.
    let error = refusal(&open.url().replace("rediss://", "redis://"));
    assert_eq!(error.code(), Code::Metadata, "{error}");
    assert!(error.text().contains("rediss://"), "{error}");
    let bare = Server::start(Kind::Redis);
    let error = refusal(&bare.url().replace("redis://", "rediss://"));
    assert_eq!(error.code(), Code::Metadata, "{error}");
    assert!(error.text().contains("TLS") && error.text().contains("redis://"), "{error}");

    let strict = server("yes");
    let error = refusal(&strict.url());
    assert_eq!(error.code(), Code::Metadata, "{error}");
    assert!(error.text().contains("MC_METADATA_CERT_FILE"), "{error}");
    std::env::set_var("MC_METADATA_CERT_FILE", file("client.pem"));
    std::env::set_var("MC_METADATA_KEY_FILE", file("client.key"));
    let (a, b) = (Node::start(&strict.url(), "a"), Node::start(&strict.url(), "b"));
    a.exchange_with(&b, a.engine.open_segment("b").unwrap(), 1).unwrap();
    drop((a, b));
    std::env::set_var("MC_METADATA_CA_FILE", file("absent.pem"));
    assert!(refusal(&open.url()).text().contains("MC_METADATA_CA_FILE"));
    std::fs::remove_dir_all(folder).unwrap();
}

/// A port where TLS is taken off before `port`.
fn tls_before(port: u16, certificate: &str, key: &str) -> u16 {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let chain = CertificateDer::pem_file_iter(certificate).unwrap().map(|c| c.unwrap()).collect();
    let key = PrivateKeyDer::from_pem_file(key).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config =
        rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_no_client_auth().with_single_cert(chain, key).unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let own = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let Ok(mut outside) = acceptor.accept(stream).await else { return };
                    let mut inside = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut outside, &mut inside).await;
                });
            }
        });
    });
    own
}
