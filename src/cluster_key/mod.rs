//! The cluster key: how the two ends of a connection prove to each other that they know the same secret, before either
//! believes a byte of the other. Challenge and response with HMAC-SHA256; the key itself is never sent.
//!
//! ```text
//! client                                              server
//!   hello: magic, purpose, id of the key, nonce   -->
//!                                                 <--  challenge: nonce, proof of the server
//!   proof of the client, and its first request    -->
//! ```
//!
//! Each proof covers both nonces, the side that made it and what the connection is for, so none can be replayed on another
//! connection, or carried from one port to the other. Every engine knows the key, so somebody in the middle may pass these messages
//! on to another one than was meant. He gains nothing by it: at a handshake port a tag follows the request and the reply,
//! which he cannot make for other words; on a data connection the proofs cover the address that was dialled, which is not that
//! of whom he asks. What is sent is not encrypted, and the bytes of a data connection are not protected against change.

mod key;
pub mod refusals;
mod settings;
pub mod stream;

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use ring::hmac;

use crate::config::{Config, Secret};
use crate::error::{Class, Code, Error};
use key::{Key, ID_LEN};
pub use settings::settle;

/// Bytes of the first message.
pub const HELLO_LEN: usize = 64;
/// Bytes of the server's answer.
pub const CHALLENGE_LEN: usize = WORD_LEN + NONCE_LEN + PROOF_LEN;
/// Bytes of a proof, of either side.
pub const PROOF_LEN: usize = 32;
/// Bytes that a hello begins with, and every answer to it.
pub const WORD_LEN: usize = 8;
const NONCE_LEN: usize = 32;

/// What a hello begins with. As the length of a handshake frame it is over any limit, so that an engine without a key hangs up.
pub const HELLO: [u8; WORD_LEN] = *b"MTE-KEY\x01";
/// What a challenge begins with.
const CHALLENGE: [u8; WORD_LEN] = *b"MTE-OK.\x01";
/// The answer to a hello with an unknown key; the server hangs up behind it.
pub const UNKNOWN: [u8; WORD_LEN] = *b"MTE-NO.\x01";
/// Where the hello has an opcode for a data port that has no key: a READ with status frames, of an address that nobody offers.
const OPCODE_AT: usize = 16;
const OPCODE: u8 = 0x80;
const PURPOSE_AT: usize = 17;
/// 1: the proofs cover the address that was dialled.
const PLACED_AT: usize = 18;
const ID_AT: usize = 24;
const NONCE_AT: usize = HELLO_LEN - NONCE_LEN;

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A handshake port.
    Handshake = 1,
    /// A data port of TCP.
    Data = 2,
}

/// The keys of a cluster.
pub struct Keys {
    /// The first is the one that this side proves to know as a client; every one is taken from others.
    keys: Vec<Key>,
    /// Peers without a key are refused.
    pub required: bool,
    /// Proofs on data connections cover the address that was dialled.
    placed: bool,
}

/// Why the other end is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Distrust {
    /// It does not take part in the exchange.
    #[error("it has no cluster key: give it the same MC_CLUSTER_KEY, or set MC_CLUSTER_KEY_REQUIRED=0 until every engine has one")]
    Stranger,
    /// It hung up on the hello: it has no key, or stops, or has too many connections. With the errno, if there is one.
    #[error("it hung up when asked for the cluster key: it has none, or stops, or has too many connections; see MC_CLUSTER_KEY and MC_CLUSTER_KEY_REQUIRED")]
    HungUp(Option<i32>),
    /// It has other keys.
    #[error("its cluster key is another one: MC_CLUSTER_KEY of both has to have a key in common, and the first one here has to be known there; MC_CLUSTER_KEY_ADDRESSES has to be the same")]
    OtherKey,
    /// Its proof is wrong, or it speaks otherwise than it should.
    #[error("it does not prove that it knows the cluster key; something else answers in its place, or its MC_CLUSTER_KEY differs")]
    Unproven,
    /// The system has no random numbers.
    #[error("there are no random numbers for a challenge")]
    NoNonce,
}

impl Distrust {
    /// The error of a call to `peer`.
    pub fn error(self, peer: impl fmt::Display) -> Error {
        let text = format!("{peer} is not believed: {self}");
        match self {
            Distrust::HungUp(errno) => match errno.map(std::io::Error::from_raw_os_error) {
                Some(error) => Error::io(Code::Socket, text, &error),
                None => Error::new(Code::Socket, text),
            },
            Distrust::NoNonce => Error::new(Code::RejectHandshake, text).transient(Class::Resource),
            // Something answers, and knows of keys.
            Distrust::OtherKey => Error::new(Code::RejectHandshake, text).permanent(Class::Rejected),
            Distrust::Stranger | Distrust::Unproven => {
                Error::new(Code::RejectHandshake, text).permanent(Class::Protocol)
            }
        }
    }

    /// The other end may be one that has no key.
    pub fn may_be_keyless(self) -> bool {
        matches!(self, Distrust::Stranger | Distrust::HungUp(_))
    }
}

impl Keys {
    /// Those of `config`, which [`settle`] has seen; `None`: this engine has none. Keys that cannot be used are keys that
    /// nobody has.
    pub fn of(config: &Config) -> Option<Self> {
        let keys = match &config.cluster_key {
            Some(Secret(text)) => settings::parse(text).unwrap_or_default(),
            None if config.cluster_key_file.is_some() => Vec::new(),
            None => return None,
        };
        let required = config.cluster_key_required.unwrap_or(true);
        Some(Keys { keys, required, placed: config.cluster_key_addresses })
    }

    /// The client's side of a connection to `dialled`, which matters for [`Purpose::Data`].
    pub fn claim(
        &self,
        purpose: Purpose,
        dialled: Option<SocketAddr>,
    ) -> std::result::Result<Claim<'_>, Distrust> {
        let key = self.keys.first().ok_or(Distrust::OtherKey)?;
        let mut hello = [0; HELLO_LEN];
        hello[..WORD_LEN].copy_from_slice(&HELLO);
        hello[OPCODE_AT] = OPCODE;
        hello[PURPOSE_AT] = purpose as u8;
        hello[PLACED_AT] = self.placed.into();
        hello[ID_AT..][..ID_LEN].copy_from_slice(&key.id);
        draw(&mut hello[NONCE_AT..])?;
        Ok(Claim { key, hello, place: self.place(purpose, dialled) })
    }

    /// The server's side, at the address `here`: what it answers to `hello`, and what it expects then. An error is answered with
    /// [`UNKNOWN`].
    pub fn challenge(
        &self,
        purpose: Purpose,
        here: Option<SocketAddr>,
        hello: &[u8; HELLO_LEN],
    ) -> std::result::Result<(Session, [u8; CHALLENGE_LEN]), Distrust> {
        if hello[..WORD_LEN] != HELLO {
            return Err(Distrust::Stranger);
        }
        if hello[PURPOSE_AT] != purpose as u8 {
            return Err(Distrust::Unproven);
        }
        let id = &hello[ID_AT..][..ID_LEN];
        let key = self.keys.iter().find(|key| key.id == id).ok_or(Distrust::OtherKey)?;
        if hello[PLACED_AT] != u8::from(self.placed) {
            return Err(Distrust::OtherKey);
        }
        let mut challenge = [0; CHALLENGE_LEN];
        challenge[..WORD_LEN].copy_from_slice(&CHALLENGE);
        let nonce = &mut challenge[WORD_LEN..][..NONCE_LEN];
        draw(nonce)?;
        let session = Session::new(key, hello, nonce, self.place(purpose, here));
        challenge[WORD_LEN + NONCE_LEN..].copy_from_slice(&session.tag(Label::Server, &[]));
        Ok((session, challenge))
    }

    fn place(&self, purpose: Purpose, at: Option<SocketAddr>) -> [u8; PLACE_LEN] {
        let mut place = [0; PLACE_LEN];
        let Some(at) = at.filter(|_| purpose == Purpose::Data && self.placed) else { return place };
        let octets = match at.ip().to_canonical() {
            IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
            IpAddr::V6(v6) => v6.octets(),
        };
        place[..16].copy_from_slice(&octets);
        place[16..].copy_from_slice(&at.port().to_be_bytes());
        place
    }
}

fn draw(nonce: &mut [u8]) -> std::result::Result<(), Distrust> {
    getrandom::fill(nonce).map_err(|_| Distrust::NoNonce)
}

/// Bytes that a proof covers beside its label: the hello whole, the server's nonce, and the address that was dialled.
const SAID_LEN: usize = HELLO_LEN + NONCE_LEN + PLACE_LEN;
const PLACE_LEN: usize = 18;

/// What is tagged, and by whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Label {
    /// The server's proof.
    Server,
    /// The client's.
    Client,
    /// A request at the handshake port.
    Request,
    /// Its reply.
    Reply,
}

impl Label {
    fn text(self) -> &'static [u8] {
        match self {
            Label::Server => b"mte cluster key 1 server",
            Label::Client => b"mte cluster key 1 client",
            Label::Request => b"mte cluster key 1 request",
            Label::Reply => b"mte cluster key 1 reply",
        }
    }
}

/// What both ends of a connection have said to each other, under a key that one of them may not know.
#[derive(Clone)]
pub struct Session {
    mac: hmac::Key,
    said: [u8; SAID_LEN],
}

impl Session {
    fn new(key: &Key, hello: &[u8; HELLO_LEN], nonce: &[u8], place: [u8; PLACE_LEN]) -> Self {
        let mut said = [0; SAID_LEN];
        said[..HELLO_LEN].copy_from_slice(hello);
        said[HELLO_LEN..][..NONCE_LEN].copy_from_slice(nonce);
        said[HELLO_LEN + NONCE_LEN..].copy_from_slice(&place);
        Session { mac: key.mac.clone(), said }
    }

    /// What only who knows the key can make for `pieces`, one after the other.
    pub fn tag(&self, label: Label, pieces: &[&[u8]]) -> [u8; PROOF_LEN] {
        let mut context = hmac::Context::with_key(&self.mac);
        context.update(label.text());
        context.update(&self.said);
        pieces.iter().for_each(|piece| context.update(piece));
        let mut tag = [0; PROOF_LEN];
        tag.copy_from_slice(context.sign().as_ref());
        tag
    }

    /// `tag` is the one of `pieces`; the time that the comparison takes does not depend on how much of it is right.
    pub fn is_tag(&self, label: Label, pieces: &[&[u8]], tag: &[u8]) -> bool {
        // ring compares what it has made itself; so both are hashed once more.
        let expected = self.tag(label, pieces);
        let blind = |bytes: &[u8]| hmac::sign(&self.mac, bytes);
        tag.len() == PROOF_LEN && hmac::verify(&self.mac, &expected, blind(tag).as_ref()).is_ok()
    }

    /// `proof` is the client's.
    pub fn admits(&self, proof: &[u8; PROOF_LEN]) -> bool {
        self.is_tag(Label::Client, &[], proof)
    }
}

/// A client that has said hello.
pub struct Claim<'a> {
    key: &'a Key,
    hello: [u8; HELLO_LEN],
    place: [u8; PLACE_LEN],
}

impl Claim<'_> {
    /// What is sent first.
    pub fn hello(&self) -> &[u8; HELLO_LEN] {
        &self.hello
    }

    /// The proof to be sent before the first request, if the server has proved itself.
    pub fn answer(
        &self,
        challenge: &[u8; CHALLENGE_LEN],
    ) -> std::result::Result<([u8; PROOF_LEN], Session), Distrust> {
        let (nonce, proof) = challenge[WORD_LEN..].split_at(NONCE_LEN);
        let session = Session::new(self.key, &self.hello, nonce, self.place);
        if challenge[..WORD_LEN] != CHALLENGE || !session.is_tag(Label::Server, &[], proof) {
            return Err(Distrust::Unproven);
        }
        Ok((session.tag(Label::Client, &[]), session))
    }
}

#[cfg(test)]
mod tests;
