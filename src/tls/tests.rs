use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::certificates::{Set, Who};
use super::settings::settle_among;
use super::stream::{admit, claim, Line, Refused};
use super::*;
use crate::config::Pem;
use crate::runtime::sockets;
use crate::runtime::tracked::Tracked;

fn settled(mut config: Config) -> crate::error::Result<()> {
    settle_among(&mut config, std::iter::empty())
}

#[test]
fn p40_settings_that_cannot_be_used_are_an_error_that_names_them() {
    let set = Set::get();
    let good = || set.config(Who::One, "good.pem");
    let file = |text: &[u8]| Some(Pem { path: "it".into(), text: Some(text.to_vec()) });
    settled(good()).unwrap();
    settled(Config::default()).unwrap();
    settled(Config { tls_required: Some(false), ..Config::default() }).unwrap();
    for (config, word) in [
        (Config { tls_required: Some(true), ..Config::default() }, "MC_TLS_REQUIRED=1"),
        (Config { tls_ca_file: None, ..good() }, "MC_TLS_CA_FILE is not set"),
        (Config { tls_cert_file: None, ..good() }, "MC_TLS_CERT_FILE is not set"),
        (Config { tls_key_file: None, ..good() }, "MC_TLS_KEY_FILE is not set"),
        (Config { tls_ca_file: file(b""), ..good() }, "MC_TLS_CA_FILE has no certificate"),
        (Config { tls_cert_file: file(b"x"), ..good() }, "MC_TLS_CERT_FILE has no certificate"),
        (Config { tls_key_file: file(b"x"), ..good() }, "MC_TLS_KEY_FILE cannot be used"),
        (Config { tls_key_file: file(set.text("two.key")), ..good() }, "MC_TLS_KEY_FILE is not the key"),
        (Config { tls_key_file: good().tls_cert_file, ..good() }, "MC_TLS_KEY_FILE"),
        (Config { tls_ca_file: file(set.text("bad.pem")), ..good() }, "of no authority in MC_TLS_CA_FILE"),
        (set.config(Who::Expired, "good.pem"), "MC_TLS_CERT_FILE has expired"),
        (
            Config { tls_cert_file: Some(Pem { path: "/nonexistent".into(), text: None }), ..good() },
            "cannot read",
        ),
        (Config { tls_cert_file: Some(Pem { path: "/dev/zero".into(), text: None }), ..good() }, "more than"),
    ] {
        let error = settled(config).unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument);
        assert!(error.text().contains(word) && error.text().contains("MC_TLS_"), "{word}: {error}");
        assert!(!error.text().contains("BEGIN"), "{error}");
    }
    let mut config = Config::default();
    let misspelt = settle_among(&mut config, ["MC_TLS_CERT"].into_iter()).unwrap_err();
    assert!(misspelt.text().contains("MC_TLS_CERT is no setting"), "{misspelt}");
    assert!(!format!("{:?}", good()).contains("BEGIN"), "no key is shown");
}

#[test]
fn p40_files_that_nobody_has_read_let_nobody_pass() {
    let file = |name: &str| Some(Pem { path: name.into(), text: None });
    let config = Config { tls_ca_file: file("/ca"), ..Config::default() };
    let unread = Tls::of(&config).unwrap();
    assert!(unread.required);
    assert_eq!(unread.server(Port::Data).err(), Some(Distrust::Unread));
    assert_eq!(unread.client(Port::Data, "localhost").err(), Some(Distrust::Unread));
}

#[test]
fn p40_a_hello_is_told_from_requests() {
    let hello = [0x16, 3, 1, 2, 0, 1, 0, 1];
    for len in 0..hello.len() {
        assert_eq!(is_hello(&hello[..len]), (len >= HELLO_LEN).then_some(true), "{len}");
    }
    // A handshake frame of 0x10316 bytes, and a request for as many.
    assert_eq!(is_hello(&0x1_0316u64.to_le_bytes()), Some(false));
    assert_eq!(is_hello(b"MTE-KEY\x01"), Some(false));
    assert_eq!(is_hello(&[9]), Some(false));
}

/// Both ends, and what they make of each other when the client sends a request and the server answers it.
async fn meet(
    client: Option<(&Tls, Port)>,
    server: &Tls,
    host: &str,
) -> (Result<u8, String>, Result<u8, String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let near = sockets::connect(listener.local_addr().unwrap()).await.unwrap();
    let (far, _) = sockets::accept(&listener).await.unwrap();
    let asks = async move {
        let mut line = match client {
            Some((tls, port)) => {
                let line = claim(tls, port, host, near).await.map_err(|e| e.to_string())?;
                assert!(line.socket().nodelay().unwrap(), "a request waits for an acknowledgement");
                line
            }
            None => Line::plain(near),
        };
        line.write_all(b"request").await.map_err(|e| e.to_string())?;
        line.flush().await.map_err(|e| e.to_string())?;
        let answer = line.read_u8().await;
        answer.map_err(|e| Distrust::of(&e).map_or(e.to_string(), |why| why.to_string()))
    };
    let serves = async move {
        let mut line = match admit(server, Port::Handshake, far).await {
            Ok(line) => line,
            Err((why, stream)) => {
                wait_for_the_end(stream).await;
                return Err(why.to_string());
            }
        };
        let first = line.read_u8().await.map_err(|e| e.to_string())?;
        line.write_all(b"!").await.map_err(|e| e.to_string())?;
        line.flush().await.map_err(|e| e.to_string())?;
        Ok(first)
    };
    tokio::join!(asks, serves)
}

/// A client that is an engine.
fn hello(tls: &Tls) -> Option<(&Tls, Port)> {
    Some((tls, Port::Handshake))
}

/// As the server does with clients that were told something.
async fn wait_for_the_end(mut stream: Tracked<TcpStream>) {
    let _ = stream.shutdown().await;
    let mut rest = [0; 256];
    while stream.read(&mut rest).await.is_ok_and(|count| count > 0) {}
}

fn run(test: impl std::future::Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
}

#[test]
fn p40_members_talk_and_others_learn_why_not() {
    let set = Set::get();
    let (one, two, elsewhere) = (set.tls(Who::One), set.tls(Who::Two), set.tls(Who::Elsewhere));
    let foreign = Tls::of(&set.config(Who::Foreign, "bad.pem")).unwrap();
    // Believes everybody, and is believed by nobody.
    let mut trusting = set.config(Who::Foreign, "bad.pem");
    let both = [set.text("good.pem"), set.text("bad.pem")].concat();
    trusting.tls_ca_file = Some(Pem { path: "both".into(), text: Some(both) });
    let trusting = Tls::of(&trusting).unwrap();
    let lenient = Tls::of(&Config { tls_required: Some(false), ..set.config(Who::One, "good.pem") }).unwrap();
    let strict = Tls::of(&Config { tls_names: true, ..set.config(Who::One, "good.pem") }).unwrap();
    run(async {
        assert_eq!(meet(hello(&one), &two, "10.0.0.1").await, (Ok(b'!'), Ok(b'r')));
        assert_eq!(meet(hello(&one), &elsewhere, "127.0.0.1").await, (Ok(b'!'), Ok(b'r')));
        let (asked, served) = meet(hello(&foreign), &one, "127.0.0.1").await;
        assert!(asked.unwrap_err().contains("its certificate is of no authority") && served.is_err());
        let (asked, served) = meet(hello(&trusting), &one, "127.0.0.1").await;
        assert!(asked.unwrap_err().contains("does not take the certificate of this side"));
        assert!(served.unwrap_err().contains("its certificate is of no authority"));
        let (_, served) = meet(None, &one, "127.0.0.1").await;
        assert!(served.unwrap_err().contains("does not use TLS"));
        assert_eq!(meet(None, &lenient, "127.0.0.1").await, (Ok(b'!'), Ok(b'r')));
        assert_eq!(meet(hello(&two), &lenient, "127.0.0.1").await, (Ok(b'!'), Ok(b'r')));
        // A connection for the other port.
        let (asked, served) = meet(Some((&two, Port::Data)), &one, "127.0.0.1").await;
        assert!(asked.is_err() && served.is_err());
        // Names.
        assert_eq!(meet(hello(&strict), &two, "127.0.0.1").await, (Ok(b'!'), Ok(b'r')));
        assert_eq!(meet(hello(&strict), &two, "localhost").await, (Ok(b'!'), Ok(b'r')));
        for (server, host) in [(&elsewhere, "127.0.0.1"), (&two, "127.0.0.2"), (&two, "a host")] {
            let (asked, _) = meet(hello(&strict), server, host).await;
            assert!(asked.unwrap_err().contains("MC_TLS_NAMES"), "{host}");
        }
    });
}

#[test]
fn p40_who_hangs_up_or_says_other_words_may_not_know_tls() {
    let one = Set::get().tls(Who::One);
    run(async {
        for (answer, expected) in [(&b""[..], None), (b"\x01\0\0\0VTCM", Some(Distrust::Plain))] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let near = sockets::connect(listener.local_addr().unwrap()).await.unwrap();
            let (mut far, _) = sockets::accept(&listener).await.unwrap();
            let mut hello = [0; 64];
            let serves = async move {
                far.read_exact(&mut hello).await.unwrap();
                assert_eq!(is_hello(&hello), Some(true));
                far.write_all(answer).await.unwrap();
                drop(far);
            };
            let (claimed, ()) = tokio::join!(claim(&one, Port::Data, "127.0.0.1", near), serves);
            let Err(Refused::Distrusted(why)) = claimed.map(drop) else { panic!("{answer:?} is believed") };
            assert!(why.may_be_plain(), "{why}");
            assert!(expected.is_none_or(|expected| why == expected) || why.may_be_plain());
            let error = why.error("peer");
            assert!(error.text().contains("MC_TLS_"), "{error}");
        }
    });
}
