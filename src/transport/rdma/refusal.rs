//! Refusals of a connection, as the two sides tell each other: a text for people, and between engines of this project a
//! word in the member `refusal` of the reply, which says whether another attempt is worth while. Texts are never read.

use crate::error::{Class, Code, Error};
use crate::handshake::ConnectionMessage;

/// Queue pair numbers have 24 bits in packets.
pub(super) const LAST_QP_NUMBER: u32 = 0xff_ffff;

/// Why a connection is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// The request is not well-formed, or does not suit this node's settings.
    Request,
    /// The NIC that is asked for is not in use here.
    Nic,
    /// The NIC that is asked for is not active now.
    Inactive,
    /// The engine that is asked for is gone; another one has its address.
    Stale,
    /// The GID is link-local, and this side's is not. A port has only that one for a moment while its address changes.
    LinkLocal,
    /// A ready message for a connection that is not there: it was evicted meanwhile.
    NoConnection,
    /// Something of this node failed, and may work next time.
    Busy,
    /// Something of this node failed.
    Local,
}

impl Reason {
    const ALL: [Reason; 8] = [
        Reason::Request,
        Reason::Nic,
        Reason::Inactive,
        Reason::Stale,
        Reason::LinkLocal,
        Reason::NoConnection,
        Reason::Busy,
        Reason::Local,
    ];

    /// The value of the member `refusal`.
    fn word(self) -> &'static str {
        match self {
            Reason::Request => "request",
            Reason::Nic => "nic",
            Reason::Inactive => "inactive",
            Reason::Stale => "stale",
            Reason::LinkLocal => "link_local",
            Reason::NoConnection => "no_connection",
            Reason::Busy => "busy",
            Reason::Local => "local",
        }
    }

    /// Whether the next attempt may succeed: it is made with a fresh descriptor, another GID, or a new connection.
    fn passes(self) -> bool {
        use Reason::{Busy, Inactive, LinkLocal, NoConnection, Stale};
        matches!(self, Inactive | Stale | LinkLocal | NoConnection | Busy)
    }
}

/// Why this engine refuses, and what is said about it.
#[derive(Debug)]
pub(super) struct Refusal {
    pub reason: Reason,
    pub error: Error,
}

impl Refusal {
    pub(super) fn new(reason: Reason, text: impl Into<String>) -> Self {
        Refusal { reason, error: Error::new(Code::RejectHandshake, text) }
    }

    /// The reply to the peer.
    pub(super) fn reply(&self) -> ConnectionMessage {
        ConnectionMessage {
            refusal: Some(self.reason.word().into()),
            ..ConnectionMessage::rejection(self.error.text())
        }
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        let reason = match error.code() {
            _ if error.retryable() => Reason::Busy,
            Code::RejectHandshake => Reason::Request,
            _ => Reason::Local,
        };
        Refusal { reason, error }
    }
}

/// The error of a peer's refusal. Peers of other projects give no word: their refusals are final.
pub(super) fn by_peer(reply: &ConnectionMessage) -> Error {
    let word = reply.refusal.as_deref();
    let reason = Reason::ALL.into_iter().find(|reason| Some(reason.word()) == word);
    let text = format!("the peer refused the connection: {}", reply.reply_msg);
    classed(reason, text)
}

/// The error of a reply that this side cannot use.
pub(super) fn unusable(reason: Reason, text: &str) -> Error {
    classed(Some(reason), format!("the peer's reply cannot be used: {text}"))
}

fn classed(reason: Option<Reason>, text: String) -> Error {
    let error = Error::new(Code::RejectHandshake, text);
    match reason {
        Some(reason) if reason.passes() => error.transient(Class::Network),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_between_engines_says_whether_to_try_again() {
        let expected = [
            (Reason::Request, false),
            (Reason::Nic, false),
            (Reason::Inactive, true),
            (Reason::Stale, true),
            (Reason::LinkLocal, true),
            (Reason::NoConnection, true),
            (Reason::Busy, true),
            (Reason::Local, false),
        ];
        assert_eq!(expected.map(|(reason, _)| reason), Reason::ALL);
        for (reason, passes) in expected {
            let sent = Refusal::new(reason, "because").reply();
            let heard = ConnectionMessage::decode(&sent.encode().unwrap()).unwrap();
            let error = by_peer(&heard);
            assert_eq!(error.retryable(), passes, "{reason:?}");
            assert_eq!(error.text(), "the peer refused the connection: because");
            assert_eq!(error.code(), Code::RejectHandshake);
        }
    }

    #[test]
    fn texts_and_words_that_nobody_knows_are_final() {
        for word in [None, Some("tired".to_string()), Some(String::new())] {
            let text = "incarnation 5 is gone; it is link-local; a connection that does not exist";
            let reply = ConnectionMessage { refusal: word, ..ConnectionMessage::rejection(text) };
            assert!(!by_peer(&reply).retryable());
        }
    }
}
