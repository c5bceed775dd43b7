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
//! connection, sent back to its maker, or carried from one port to the other. What follows is neither encrypted nor
//! protected against change: see "Cluster key" in SECURITY.md.

pub mod stream;

use std::fmt;

use ring::hmac;

use crate::config::{Config, Secret};
use crate::error::{Class, Code, Error, Result};

/// Bytes of the first message.
pub const HELLO_LEN: usize = 64;
/// Bytes of the server's answer.
pub const CHALLENGE_LEN: usize = WORD_LEN + NONCE_LEN + PROOF_LEN;
/// Bytes of a proof, of either side.
pub const PROOF_LEN: usize = 32;
/// Bytes that a hello begins with, and every answer to it.
pub const WORD_LEN: usize = 8;
const NONCE_LEN: usize = 32;
const ID_LEN: usize = 8;

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
const ID_AT: usize = 24;
const NONCE_AT: usize = HELLO_LEN - NONCE_LEN;

/// Shortest key in characters. Chosen: 16 random bytes in hexadecimal; whoever sees connections can try keys at leisure.
const LEAST: usize = 32;
/// Longest file of keys, bytes. Chosen: dozens of keys.
const FILE_LIMIT: u64 = 64 << 10;

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
}

struct Key {
    id: [u8; ID_LEN],
    mac: hmac::Key,
}

/// Why the other end is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Distrust {
    /// It does not take part in the exchange.
    #[error("it has no cluster key: give it the same MC_CLUSTER_KEY, or set MC_CLUSTER_KEY_REQUIRED=0 until every engine has one")]
    Stranger,
    /// It has other keys.
    #[error("its cluster key is another one: MC_CLUSTER_KEY of both has to have a key in common, and the first one here has to be known there")]
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
        let error = Error::new(Code::RejectHandshake, format!("{peer} is not believed: {self}"));
        match self {
            Distrust::NoNonce => error.transient(Class::Resource),
            _ => error.permanent(Class::Rejected),
        }
    }
}

/// Puts the keys of `MC_CLUSTER_KEY_FILE` where those of `MC_CLUSTER_KEY` are. An error if they cannot be used: an engine
/// that was to have a key never runs without one.
pub fn settle(config: &mut Config) -> Result<()> {
    if let Some(path) = &config.cluster_key_file {
        if config.cluster_key.is_some() {
            return Err(Error::invalid("MC_CLUSTER_KEY and MC_CLUSTER_KEY_FILE are both set; unset one"));
        }
        let failed = |e: &std::io::Error| {
            Error::io(Code::InvalidArgument, format!("cannot read MC_CLUSTER_KEY_FILE {path}"), e)
        };
        let size = std::fs::metadata(path).map_err(|e| failed(&e))?.len();
        if size > FILE_LIMIT {
            return Err(Error::invalid(format!(
                "MC_CLUSTER_KEY_FILE {path} has {size} bytes; is it the right file?"
            )));
        }
        config.cluster_key = Some(Secret(std::fs::read_to_string(path).map_err(|e| failed(&e))?));
    }
    match &config.cluster_key {
        Some(Secret(text)) => parse(text).map(drop).map_err(|why| {
            let from =
                if config.cluster_key_file.is_some() { "MC_CLUSTER_KEY_FILE" } else { "MC_CLUSTER_KEY" };
            Error::invalid(format!("{from}: {why}"))
        }),
        None => Ok(()),
    }
}

/// The keys in `text`: separated by commas or lines. Never shows one.
fn parse(text: &str) -> std::result::Result<Vec<Key>, String> {
    let keys: Vec<&str> = text.split([',', '\n']).map(str::trim).filter(|key| !key.is_empty()).collect();
    if keys.is_empty() {
        return Err("there is no key; make one with: openssl rand -hex 32".into());
    }
    if let Some(at) = keys.iter().position(|key| key.len() < LEAST) {
        let len = keys[at].len();
        return Err(format!(
            "key {} has {len} characters, {LEAST} are the least; make one with: openssl rand -hex 32",
            at + 1
        ));
    }
    Ok(keys.into_iter().map(Key::new).collect())
}

impl Key {
    fn new(text: &str) -> Self {
        let mac = hmac::Key::new(hmac::HMAC_SHA256, text.as_bytes());
        let mut id = [0; ID_LEN];
        id.copy_from_slice(&hmac::sign(&mac, b"mte cluster key 1 id").as_ref()[..ID_LEN]);
        Key { id, mac }
    }
}

impl Keys {
    /// Those of `config`, which [`settle`] has seen; `None`: this engine has none. Keys that cannot be used are keys that
    /// nobody has.
    pub fn of(config: &Config) -> Option<Self> {
        let Secret(text) = config.cluster_key.as_ref()?;
        Some(Keys { keys: parse(text).unwrap_or_default(), required: config.cluster_key_required })
    }

    /// The client's side of a connection.
    pub fn claim(&self, purpose: Purpose) -> std::result::Result<Claim<'_>, Distrust> {
        let key = self.keys.first().ok_or(Distrust::OtherKey)?;
        let mut hello = [0; HELLO_LEN];
        hello[..WORD_LEN].copy_from_slice(&HELLO);
        hello[OPCODE_AT] = OPCODE;
        hello[PURPOSE_AT] = purpose as u8;
        hello[ID_AT..][..ID_LEN].copy_from_slice(&key.id);
        draw(&mut hello[NONCE_AT..])?;
        Ok(Claim { key, hello })
    }

    /// The server's side: what it answers to `hello`, and what it expects then. An error is answered with [`UNKNOWN`].
    pub fn challenge(
        &self,
        purpose: Purpose,
        hello: &[u8; HELLO_LEN],
    ) -> std::result::Result<(Visitor, [u8; CHALLENGE_LEN]), Distrust> {
        if hello[..WORD_LEN] != HELLO {
            return Err(Distrust::Stranger);
        }
        if hello[PURPOSE_AT] != purpose as u8 {
            return Err(Distrust::Unproven);
        }
        let id = &hello[ID_AT..][..ID_LEN];
        let key = self.keys.iter().find(|key| key.id == id).ok_or(Distrust::OtherKey)?;
        let mut challenge = [0; CHALLENGE_LEN];
        challenge[..WORD_LEN].copy_from_slice(&CHALLENGE);
        draw(&mut challenge[WORD_LEN..][..NONCE_LEN])?;
        let mut said = [0; SAID_LEN];
        said[..HELLO_LEN].copy_from_slice(hello);
        said[HELLO_LEN..].copy_from_slice(&challenge[WORD_LEN..][..NONCE_LEN]);
        challenge[WORD_LEN + NONCE_LEN..].copy_from_slice(sign(key, SERVER, &said).as_ref());
        Ok((Visitor { mac: key.mac.clone(), said }, challenge))
    }
}

/// Bytes that a proof covers beside the side that makes it: the hello whole, and the server's nonce.
const SAID_LEN: usize = HELLO_LEN + NONCE_LEN;
const SERVER: &[u8] = b"mte cluster key 1 server";
const CLIENT: &[u8] = b"mte cluster key 1 client";

fn sign(key: &Key, side: &[u8], said: &[u8; SAID_LEN]) -> hmac::Tag {
    let mut context = hmac::Context::with_key(&key.mac);
    context.update(side);
    context.update(said);
    context.sign()
}

fn draw(nonce: &mut [u8]) -> std::result::Result<(), Distrust> {
    getrandom::fill(nonce).map_err(|_| Distrust::NoNonce)
}

/// `proof` is what `side` makes of `said`; the time this takes does not depend on how much of it is right.
fn is_proof(mac: &hmac::Key, side: &[u8], said: &[u8; SAID_LEN], proof: &[u8]) -> bool {
    let mut message = Vec::with_capacity(side.len() + SAID_LEN);
    message.extend_from_slice(side);
    message.extend_from_slice(said);
    hmac::verify(mac, &message, proof).is_ok()
}

/// A client that has said hello.
pub struct Claim<'a> {
    key: &'a Key,
    hello: [u8; HELLO_LEN],
}

impl Claim<'_> {
    /// What is sent first.
    pub fn hello(&self) -> &[u8; HELLO_LEN] {
        &self.hello
    }

    /// The proof to be sent before the first request, if the server has proved itself.
    pub fn answer(&self, challenge: &[u8; CHALLENGE_LEN]) -> std::result::Result<[u8; PROOF_LEN], Distrust> {
        let (nonce, proof) = challenge[WORD_LEN..].split_at(NONCE_LEN);
        let mut said = [0; SAID_LEN];
        said[..HELLO_LEN].copy_from_slice(&self.hello);
        said[HELLO_LEN..].copy_from_slice(nonce);
        if challenge[..WORD_LEN] != CHALLENGE || !is_proof(&self.key.mac, SERVER, &said, proof) {
            return Err(Distrust::Unproven);
        }
        let mut answer = [0; PROOF_LEN];
        answer.copy_from_slice(sign(self.key, CLIENT, &said).as_ref());
        Ok(answer)
    }
}

/// What a server keeps of a client that has been challenged.
pub struct Visitor {
    mac: hmac::Key,
    said: [u8; SAID_LEN],
}

impl Visitor {
    /// `proof` is the right one.
    pub fn proves(&self, proof: &[u8; PROOF_LEN]) -> bool {
        is_proof(&self.mac, CLIENT, &self.said, proof)
    }
}

#[cfg(test)]
mod tests;
