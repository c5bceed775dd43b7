//! What a peer has to pass before anything it sends is a request: TLS, and the proof of the cluster key, where they are used.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::sock::{Io, Iov, Socket};
use super::wire::HEADER_LEN;
use crate::cluster_key::{
    Distrust, Keys, Purpose, Session, CHALLENGE_LEN, HELLO, HELLO_LEN, PROOF_LEN, UNKNOWN, WORD_LEN,
};
use crate::tls::{self, is_hello, Port, Tls};

/// How long it may take. Chosen: as at the handshake port.
const LIMIT: Duration = Duration::from_secs(5);

/// The door of one connection.
pub(super) struct Door {
    /// Until it is clear whether the peer begins TLS.
    tls: Option<Arc<Tls>>,
    keys: Option<Arc<Keys>>,
    /// Once it has said hello.
    session: Option<Session>,
    opened: Instant,
}

/// Why a peer is not believed.
#[derive(Debug, PartialEq)]
pub(super) enum Doubt {
    Key(Distrust),
    Tls(tls::Distrust),
}

impl Doubt {
    /// It may be one that knows of neither, and understands the refusal of a request only.
    pub(super) fn is_of_stranger(&self) -> bool {
        matches!(self, Doubt::Key(Distrust::Stranger) | Doubt::Tls(tls::Distrust::Plain))
    }
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Doubt::Key(why) => why.fmt(f),
            Doubt::Tls(why) => why.fmt(f),
        }
    }
}

/// What the bytes received so far have come to.
#[derive(Debug, PartialEq)]
pub(super) enum Passed {
    /// More are needed.
    Waits,
    /// The peer is believed; what is left are requests.
    Through,
    /// It is not.
    Refused(Doubt),
}

impl Passed {
    fn refused(why: Distrust) -> Self {
        Passed::Refused(Doubt::Key(why))
    }
}

impl Door {
    /// Headers whose bytes a hello fits in.
    pub(super) const HEADS: usize = HELLO_LEN.div_ceil(HEADER_LEN);

    /// A closed one; `None` where there is nothing to pass.
    pub(super) fn new(tls: Option<Arc<Tls>>, keys: Option<Arc<Keys>>) -> Option<Self> {
        let is_needed = tls.is_some() || keys.is_some();
        is_needed.then(|| Door { tls, keys, session: None, opened: Instant::now() })
    }

    /// The peer has taken too long: ours prove at once, and where nothing is required there may be nothing to prove.
    pub(super) fn is_overdue(&self, socket: &Socket, now: Instant) -> bool {
        let is_required = self.tls.as_ref().is_some_and(|tls| tls.required)
            || self.keys.as_ref().is_some_and(|keys| keys.required);
        now.saturating_duration_since(self.opened) > LIMIT && (is_required || socket.is_beginning())
    }

    /// Why the peer is not believed, if the connection failed for that reason while TLS began.
    pub(super) fn doubt(socket: &Socket, error: &std::io::Error) -> Option<Doubt> {
        tls::Distrust::of(error).filter(|_| socket.is_beginning()).map(Doubt::Tls)
    }

    /// Looks at the first `len` of `bytes`, all that have come, and takes away what is done with.
    pub(super) fn pass(&mut self, bytes: &mut [u8], len: &mut usize, socket: &mut Socket) -> Passed {
        if let Some(tls) = &self.tls {
            match is_hello(&bytes[..*len]) {
                None => return Passed::Waits,
                Some(true) => match tls.server(Port::Data) {
                    Ok(begun) => {
                        socket.secure(begun, &bytes[..*len]);
                        *len = 0;
                        self.tls = None;
                        return Passed::Waits;
                    }
                    Err(why) => return Passed::Refused(Doubt::Tls(why)),
                },
                // Enough to answer a request with its refusal.
                Some(false) if tls.required && *len < HEADER_LEN => return Passed::Waits,
                Some(false) if tls.required => return Passed::Refused(Doubt::Tls(tls::Distrust::Plain)),
                Some(false) => self.tls = None,
            }
        }
        let Some(keys) = &self.keys else { return Passed::Through };
        let come = &bytes[..*len];
        let (passed, used) = match &self.session {
            None => greet(keys, &mut self.session, come, socket),
            Some(session) => match come.first_chunk() {
                None => (Passed::Waits, 0),
                Some(proof) if session.admits(proof) => (Passed::Through, PROOF_LEN),
                Some(_) => (Passed::refused(Distrust::Unproven), 0),
            },
        };
        bytes.copy_within(used..*len, 0);
        *len -= used;
        passed
    }
}

/// Answers the hello of the cluster key.
fn greet(keys: &Keys, begun: &mut Option<Session>, bytes: &[u8], socket: &Socket) -> (Passed, usize) {
    let known = bytes.len().min(WORD_LEN);
    if bytes[..known] != HELLO[..known] {
        return match keys.required {
            true if bytes.len() < HEADER_LEN => (Passed::Waits, 0),
            true => (Passed::refused(Distrust::Stranger), 0),
            false => (Passed::Through, 0),
        };
    }
    let Some(hello) = bytes.first_chunk() else { return (Passed::Waits, 0) };
    match keys.challenge(Purpose::Data, socket.address(), hello) {
        // Little was sent on this connection yet, so what does not fit now is a failure.
        Ok((session, challenge)) if send(socket, &challenge) == CHALLENGE_LEN => {
            *begun = Some(session);
            (Passed::Waits, HELLO_LEN)
        }
        Ok(_) => (Passed::refused(Distrust::Unproven), 0),
        Err(why) => {
            send(socket, &UNKNOWN);
            (Passed::refused(why), 0)
        }
    }
}

fn send(socket: &Socket, bytes: &[u8]) -> usize {
    let mut iov = Iov::new();
    iov.push(bytes);
    match socket.send(&mut iov) {
        Io::Moved(n) => n,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};

    use super::*;
    use crate::config::{Config, Secret};
    use crate::runtime::tracked::Tracked;

    fn keys(required: bool) -> Arc<Keys> {
        let key = Some(Secret("0123456789abcdef0123456789abcdef".into()));
        let config = Config { cluster_key: key, cluster_key_required: Some(required), ..Config::default() };
        Arc::new(Keys::of(&config).unwrap())
    }

    fn closed(keys: Arc<Keys>) -> Door {
        Door::new(None, Some(keys)).unwrap()
    }

    fn pair() -> (TcpStream, Socket) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let far = Tracked::open(|| listener.accept().map(|(stream, _)| stream)).unwrap();
        (near, Socket::new(far, None).unwrap())
    }

    /// What `door` makes of `bytes`, and how many of them it leaves.
    fn pass(door: &mut Door, bytes: &[u8], socket: &mut Socket) -> (Passed, usize) {
        let (mut bytes, mut len) = (bytes.to_vec(), bytes.len());
        (door.pass(&mut bytes, &mut len, socket), len)
    }

    #[test]
    fn p38_a_door_opens_to_the_proof_however_it_arrives() {
        let keys = keys(true);
        for step in [1, 7, HELLO_LEN] {
            let (mut near, mut far) = pair();
            let mut door = closed(keys.clone());
            let claim = keys.claim(Purpose::Data, near.peer_addr().ok()).unwrap();
            for end in (1..HELLO_LEN).step_by(step) {
                assert_eq!(pass(&mut door, &claim.hello()[..end], &mut far), (Passed::Waits, end));
            }
            assert_eq!(pass(&mut door, claim.hello(), &mut far), (Passed::Waits, 0));
            let mut challenge = [0; CHALLENGE_LEN];
            near.read_exact(&mut challenge).unwrap();
            let mut all = claim.answer(&challenge).unwrap().0.to_vec();
            assert_eq!(pass(&mut door, &all[..PROOF_LEN - 1], &mut far), (Passed::Waits, PROOF_LEN - 1));
            all.extend([7; HEADER_LEN]);
            assert_eq!(pass(&mut door, &all, &mut far), (Passed::Through, HEADER_LEN));
        }
    }

    #[test]
    fn p38_who_cannot_prove_the_key_is_refused() {
        let keys = keys(true);
        let (mut near, mut far) = pair();
        let mut door = closed(keys.clone());
        assert_eq!(pass(&mut door, &[0; HEADER_LEN - 1], &mut far).0, Passed::Waits);
        assert_eq!(pass(&mut door, &[0; HEADER_LEN], &mut far).0, Passed::refused(Distrust::Stranger));
        let claim = keys.claim(Purpose::Data, near.peer_addr().ok()).unwrap();
        assert_eq!(pass(&mut door, claim.hello(), &mut far), (Passed::Waits, 0));
        assert_eq!(pass(&mut door, &[1; PROOF_LEN], &mut far).0, Passed::refused(Distrust::Unproven));
        let mut challenge = [0; CHALLENGE_LEN];
        near.read_exact(&mut challenge).unwrap();
        // The id of the key.
        let mut other = *claim.hello();
        other[HELLO_LEN - 40] ^= 1;
        assert_eq!(pass(&mut closed(keys), &other, &mut far).0, Passed::refused(Distrust::OtherKey));
        let mut word = [0; WORD_LEN];
        near.read_exact(&mut word).unwrap();
        assert_eq!(word, UNKNOWN);
    }

    #[test]
    fn p38_a_proof_for_another_address_opens_no_door() {
        let keys = keys(true);
        let (mut near, mut far) = pair();
        // As if somebody at another port had passed on what he heard.
        let mut elsewhere = near.peer_addr().unwrap();
        elsewhere.set_port(elsewhere.port() ^ 1);
        let claim = keys.claim(Purpose::Data, Some(elsewhere)).unwrap();
        assert_eq!(pass(&mut closed(keys.clone()), claim.hello(), &mut far), (Passed::Waits, 0));
        let mut challenge = [0; CHALLENGE_LEN];
        near.read_exact(&mut challenge).unwrap();
        assert_eq!(claim.answer(&challenge).err(), Some(Distrust::Unproven));
    }

    #[test]
    fn p39_a_door_is_not_held_open() {
        let (_near, far) = pair();
        let later = Instant::now() + LIMIT + LIMIT;
        assert!(
            closed(keys(true)).is_overdue(&far, later)
                && !closed(keys(true)).is_overdue(&far, Instant::now())
        );
        assert!(!closed(keys(false)).is_overdue(&far, later));
    }

    #[test]
    fn a_door_lets_strangers_in_where_no_key_is_required() {
        let (_near, mut far) = pair();
        assert_eq!(pass(&mut closed(keys(false)), &[0], &mut far), (Passed::Through, 1));
        assert_eq!(pass(&mut closed(keys(false)), &HELLO, &mut far), (Passed::Waits, WORD_LEN));
    }

    #[test]
    fn p40_a_door_asks_for_tls_where_it_is_used() {
        use crate::tls::certificates::{Set, Who};
        let set = Set::get();
        let lenient = Config { tls_required: Some(false), ..set.config(Who::One, "good.pem") };
        let (strict, lenient) = (set.tls(Who::One), Tls::of(&lenient).unwrap());
        let closed = |tls: &Arc<Tls>| Door::new(Some(tls.clone()), None).unwrap();
        let (_near, mut far) = pair();
        let later = Instant::now() + LIMIT + LIMIT;
        let request = [0; HEADER_LEN];
        let plain = || Passed::Refused(Doubt::Tls(tls::Distrust::Plain));
        assert_eq!(pass(&mut closed(&strict), &request[1..], &mut far).0, Passed::Waits);
        assert_eq!(pass(&mut closed(&strict), &request, &mut far).0, plain());
        assert!(closed(&strict).is_overdue(&far, later));
        assert_eq!(pass(&mut closed(&lenient), &request, &mut far), (Passed::Through, HEADER_LEN));
        assert!(!closed(&lenient).is_overdue(&far, later));
        let mut door = closed(&lenient);
        assert_eq!(pass(&mut door, &[0x16, 3, 1, 0, 9], &mut far), (Passed::Waits, 5));
        assert_eq!(pass(&mut door, &[0x16, 3, 1, 0, 9, 1], &mut far), (Passed::Waits, 0));
        assert!(far.is_beginning() && door.is_overdue(&far, later) && !door.is_overdue(&far, Instant::now()));
    }
}
