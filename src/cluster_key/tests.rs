use super::*;

const OLD: &str = "0123456789abcdef0123456789abcdef";
const NEW: &str = "fedcba9876543210fedcba9876543210";

fn keys(text: &str) -> Keys {
    let config = Config { cluster_key: Some(Secret(text.into())), ..Config::default() };
    Keys::of(&config).unwrap()
}

/// What both ends make of each other: the client of the server, the server of the client.
fn meet(client: &Keys, server: &Keys) -> std::result::Result<bool, Distrust> {
    let claim = client.claim(Purpose::Data, None)?;
    let (session, challenge) = server.challenge(Purpose::Data, None, claim.hello())?;
    let (proof, _) = claim.answer(&challenge)?;
    Ok(session.admits(&proof))
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
    let claim = keys.claim(Purpose::Handshake, None).unwrap();
    let (session, challenge) = keys.challenge(Purpose::Handshake, None, claim.hello()).unwrap();
    let (proof, _) = claim.answer(&challenge).unwrap();
    for at in 0..HELLO_LEN {
        let mut hello = *claim.hello();
        hello[at] ^= 1;
        // Either the server refuses it, or the client does not believe the proof over other words than its own.
        if let Ok((_, challenge)) = keys.challenge(Purpose::Handshake, None, &hello) {
            assert_eq!(claim.answer(&challenge).err(), Some(Distrust::Unproven), "{at}");
        }
    }
    for at in 0..CHALLENGE_LEN {
        let mut other = challenge;
        other[at] ^= 1;
        assert_eq!(claim.answer(&other).err(), Some(Distrust::Unproven), "{at}");
    }
    for at in 0..PROOF_LEN {
        let mut other = proof;
        other[at] ^= 1;
        assert!(!session.admits(&other), "{at}");
    }
    assert!(session.admits(&proof));
}

#[test]
fn p38_what_was_heard_on_one_connection_opens_no_other() {
    let keys = keys(OLD);
    let claim = keys.claim(Purpose::Handshake, None).unwrap();
    let (_, challenge) = keys.challenge(Purpose::Handshake, None, claim.hello()).unwrap();
    let (proof, _) = claim.answer(&challenge).unwrap();
    // The same hello again: the server's nonce is new.
    let (session, again) = keys.challenge(Purpose::Handshake, None, claim.hello()).unwrap();
    assert_ne!(challenge, again);
    assert!(!session.admits(&proof));
    // The server's own proof is not the client's.
    let mut servers = [0; PROOF_LEN];
    servers.copy_from_slice(&again[CHALLENGE_LEN - PROOF_LEN..]);
    assert!(!session.admits(&servers));
    // Nor does a hello for one port open the other.
    assert_eq!(keys.challenge(Purpose::Data, None, claim.hello()).err(), Some(Distrust::Unproven));
}

#[test]
fn p38_a_tag_is_for_its_words_its_direction_and_its_connection() {
    let keys = keys(OLD);
    let claim = keys.claim(Purpose::Handshake, None).unwrap();
    let (server, challenge) = keys.challenge(Purpose::Handshake, None, claim.hello()).unwrap();
    let (_, client) = claim.answer(&challenge).unwrap();
    let tag = client.tag(Label::Request, &[b"head", b"body"]);
    assert!(server.is_tag(Label::Request, &[b"headbody"], &tag), "pieces are one text");
    assert!(!server.is_tag(Label::Request, &[b"headbodx"], &tag));
    assert!(!server.is_tag(Label::Reply, &[b"headbody"], &tag));
    assert!(!server.is_tag(Label::Request, &[b"headbody"], &tag[1..]));
    let (other, _) = keys.challenge(Purpose::Handshake, None, claim.hello()).unwrap();
    assert!(!other.is_tag(Label::Request, &[b"headbody"], &tag));
}

#[test]
fn p38_the_proof_of_a_data_connection_is_for_the_address_that_was_dialled() {
    let at = |text: &str| Some(text.parse().unwrap());
    let other_setting = Keys { placed: false, ..keys(OLD) };
    let believed = |client: &Keys, dialled: &str, server: &Keys, here: &str| {
        let claim = client.claim(Purpose::Data, at(dialled)).unwrap();
        let challenged = server.challenge(Purpose::Data, at(here), claim.hello());
        challenged.and_then(|(_, challenge)| claim.answer(&challenge)).map(drop)
    };
    let keys = keys(OLD);
    assert_eq!(believed(&keys, "10.0.0.1:5", &keys, "[::ffff:10.0.0.1]:5"), Ok(()));
    assert_eq!(believed(&keys, "10.0.0.2:5", &keys, "10.0.0.1:5"), Err(Distrust::Unproven));
    assert_eq!(believed(&keys, "10.0.0.1:6", &keys, "10.0.0.1:5"), Err(Distrust::Unproven));
    assert_eq!(believed(&other_setting, "10.0.0.1:6", &other_setting, "10.0.0.2:5"), Ok(()));
    assert_eq!(believed(&keys, "10.0.0.1:5", &other_setting, "10.0.0.1:5"), Err(Distrust::OtherKey));
    assert_eq!(believed(&other_setting, "10.0.0.1:5", &keys, "10.0.0.1:5"), Err(Distrust::OtherKey));
}

#[test]
fn p38_a_file_that_nobody_has_read_is_a_key_that_nobody_has() {
    let config = Config { cluster_key_file: Some("/somewhere".into()), ..Config::default() };
    let unread = Keys::of(&config).unwrap();
    assert!(unread.required);
    assert_eq!(meet(&unread, &keys(OLD)), Err(Distrust::OtherKey));
    assert_eq!(meet(&keys(OLD), &unread), Err(Distrust::OtherKey));
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
                match stream::claim(keys, &mut near, Purpose::Handshake, None).await {
                    Ok((proof, _)) => first.extend_from_slice(&proof),
                    Err(why) => return Some(why.to_string()),
                }
            }
            first.extend_from_slice(b"a request");
            near.write_all(&first).await.err().map(|e| e.to_string())
        };
        let serves = async move {
            let admitted = stream::admit(server, &mut far, Purpose::Handshake, None).await;
            let ahead = match admitted.map_err(|e| e.to_string())? {
                stream::Admitted::Keyless(ahead) => ahead,
                stream::Admitted::Member(_) => Vec::new(),
            };
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
