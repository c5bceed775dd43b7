use super::*;

const OLD: &str = "0123456789abcdef0123456789abcdef";
const NEW: &str = "fedcba9876543210fedcba9876543210";

fn keys(text: &str) -> Keys {
    let config = Config { cluster_key: Some(Secret(text.into())), ..Config::default() };
    Keys::of(&config).unwrap()
}

/// What both ends make of each other: the client of the server, the server of the client.
fn meet(client: &Keys, server: &Keys) -> std::result::Result<bool, Distrust> {
    let claim = client.claim(Purpose::Data)?;
    let (visitor, challenge) = server.challenge(Purpose::Data, claim.hello())?;
    let proof = claim.answer(&challenge)?;
    Ok(visitor.proves(&proof))
}

#[test]
fn p38_the_same_key_is_proved_both_ways_and_another_one_is_not() {
    assert_eq!(meet(&keys(OLD), &keys(OLD)), Ok(true));
    assert_eq!(meet(&keys(OLD), &keys(NEW)), Err(Distrust::OtherKey));
    assert_eq!(meet(&keys(""), &keys(OLD)), Err(Distrust::OtherKey), "no usable key is nobody's");
    assert_eq!(meet(&keys(OLD), &keys("")), Err(Distrust::OtherKey));
}

#[test]
fn p38_each_step_of_a_rotation_leaves_every_pair_able_to_talk() {
    let steps = [OLD.to_string(), format!("{OLD},{NEW}"), format!("{NEW}\n{OLD}\n"), NEW.to_string()];
    for pair in steps.windows(2) {
        for (client, server) in [(&pair[0], &pair[1]), (&pair[1], &pair[0])] {
            assert_eq!(meet(&keys(client), &keys(server)), Ok(true), "{client} to {server}");
        }
    }
}

#[test]
fn p38_no_byte_of_any_message_can_be_another() {
    let keys = keys(OLD);
    let claim = keys.claim(Purpose::Handshake).unwrap();
    let (visitor, challenge) = keys.challenge(Purpose::Handshake, claim.hello()).unwrap();
    let proof = claim.answer(&challenge).unwrap();
    for at in 0..HELLO_LEN {
        let mut hello = *claim.hello();
        hello[at] ^= 1;
        // Either the server refuses it, or the client does not believe the proof over other words than its own.
        if let Ok((_, challenge)) = keys.challenge(Purpose::Handshake, &hello) {
            assert_eq!(claim.answer(&challenge), Err(Distrust::Unproven), "{at}");
        }
    }
    for at in 0..CHALLENGE_LEN {
        let mut other = challenge;
        other[at] ^= 1;
        assert_eq!(claim.answer(&other), Err(Distrust::Unproven), "{at}");
    }
    for at in 0..PROOF_LEN {
        let mut other = proof;
        other[at] ^= 1;
        assert!(!visitor.proves(&other), "{at}");
    }
    assert!(visitor.proves(&proof));
}

#[test]
fn p38_what_was_heard_on_one_connection_opens_no_other() {
    let keys = keys(OLD);
    let claim = keys.claim(Purpose::Handshake).unwrap();
    let (_, challenge) = keys.challenge(Purpose::Handshake, claim.hello()).unwrap();
    let proof = claim.answer(&challenge).unwrap();
    // The same hello again: the server's nonce is new.
    let (visitor, again) = keys.challenge(Purpose::Handshake, claim.hello()).unwrap();
    assert_ne!(challenge, again);
    assert!(!visitor.proves(&proof));
    // The server's own proof is not the client's.
    let mut servers = [0; PROOF_LEN];
    servers.copy_from_slice(&again[CHALLENGE_LEN - PROOF_LEN..]);
    assert!(!visitor.proves(&servers));
    // Nor does a hello for one port open the other.
    assert_eq!(keys.challenge(Purpose::Data, claim.hello()).err(), Some(Distrust::Unproven));
}

#[test]
fn keys_that_cannot_be_used_are_an_error_that_does_not_show_them() {
    let settled = |text: &str| {
        let mut config = Config { cluster_key: Some(Secret(text.into())), ..Config::default() };
        settle(&mut config)
    };
    settled(OLD).unwrap();
    settled(&format!(" {OLD} ,{NEW},")).unwrap();
    for (text, word) in
        [("", "no key"), (" ,\n", "no key"), ("tooshort", "8 characters"), (&format!("{OLD},short"), "key 2")]
    {
        let error = settled(text).unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument);
        assert!(error.text().contains(word) && error.text().contains("MC_CLUSTER_KEY"), "{error}");
        assert!(!error.text().contains("short,") && !error.text().contains("tooshort"), "{error}");
    }
}

#[test]
fn keys_come_from_a_file_too() {
    let path = std::env::temp_dir().join(format!("mte-keys-{}", std::process::id()));
    let at = Some(path.to_str().unwrap().to_string());
    let config = || Config { cluster_key_file: at.clone(), ..Config::default() };
    let missing = settle(&mut config()).unwrap_err();
    assert!(missing.text().contains("MC_CLUSTER_KEY_FILE"), "{missing}");
    std::fs::write(&path, format!("{NEW}\n{OLD}\n")).unwrap();
    let mut read = config();
    settle(&mut read).unwrap();
    assert_eq!(meet(&Keys::of(&read).unwrap(), &keys(NEW)), Ok(true));
    let mut both = Config { cluster_key: Some(Secret(OLD.into())), ..config() };
    assert!(settle(&mut both).unwrap_err().text().contains("both set"));
    std::fs::write(&path, "").unwrap();
    assert!(settle(&mut config()).unwrap_err().text().contains("no key"));
    std::fs::remove_file(&path).unwrap();
}

/// Both ends over a stream; the client's request is one byte.
fn over_a_stream(client: Option<&Keys>, server: &Keys) -> (Option<String>, std::result::Result<u8, String>) {
    use tokio::io::{duplex, AsyncReadExt, AsyncWriteExt};
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let (mut near, mut far) = duplex(256);
        let asks = async move {
            let mut first = Vec::new();
            if let Some(keys) = client {
                match stream::claim(keys, &mut near, Purpose::Handshake).await {
                    Ok(proof) => first.extend_from_slice(&proof),
                    Err(why) => return Some(why.to_string()),
                }
            }
            first.extend_from_slice(b"a request");
            near.write_all(&first).await.err().map(|e| e.to_string())
        };
        let serves = async move {
            let ahead =
                stream::admit(server, &mut far, Purpose::Handshake).await.map_err(|e| e.to_string())?;
            let mut first = [0];
            let _ = (&ahead[..]).chain(&mut far).read_exact(&mut first).await;
            Ok(first[0])
        };
        tokio::join!(asks, serves)
    })
}

#[test]
fn p38_a_stream_is_served_after_the_proofs_only() {
    assert_eq!(over_a_stream(Some(&keys(OLD)), &keys(OLD)), (None, Ok(b'a')));
    let (_, served) = over_a_stream(None, &keys(OLD));
    assert!(served.unwrap_err().contains("no cluster key"));
    let (asked, served) = over_a_stream(Some(&keys(NEW)), &keys(OLD));
    assert!(asked.unwrap().contains("another one") && served.is_err());
    let lenient = Keys { required: false, ..keys(OLD) };
    assert_eq!(over_a_stream(None, &lenient), (None, Ok(b'a')), "where none is required");
    assert_eq!(over_a_stream(Some(&keys(OLD)), &lenient), (None, Ok(b'a')));
}
