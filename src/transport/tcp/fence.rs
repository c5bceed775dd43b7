//! A connection that has ended here may live on at the peer: its kernel, or something in between, may hold bytes that the
//! peer has yet to read. A peer of this project is asked to close its end, by the mark that the connection told it when it was
//! made, on the control plane (a type-0 message with the members `withdraw` and `connections`). Once it has confirmed, no byte
//! of the connection reaches its memory any more. So a WRITE that was begun is sent again only behind this fence, and
//! `mte_task_drained` knows when the range of one that failed is quiet.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::shared::Shared;
use super::wire::{INCARNATION_LEN, MARKS};
use crate::error::{Class, Code, Error, Result};
use crate::handshake::ConnectionMessage;
use crate::runtime::backoff::Backoff;
use crate::runtime::BoxFuture;
use crate::transport::host::Route;
use crate::transport::incarnation;

/// How long WRITEs wait for the peer's word before they fail. Chosen: a peer that works answers within milliseconds, and
/// one that does not cannot be written to either.
const WORD_LIMIT: Duration = Duration::from_secs(2);
/// How long a peer that does not answer is asked about ranges of failed WRITEs. Chosen: a process that was stopped for a
/// minute is mostly not continued.
const FOLLOW_LIMIT: Duration = Duration::from_secs(60);
/// Between two questions. Chosen: whoever waits for a drained range hears of it soon, and a dead peer costs little.
const PAUSES: Backoff = Backoff { first: Duration::from_millis(50), longest: Duration::from_secs(1) };
/// Most connections of one question; a longer one is not confirmed, and closes nothing. Chosen: our own names one.
const MOST_MARKS: usize = 1024;

/// What a connection is known by at the peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    /// Random, not 0.
    pub number: u64,
    /// The peer's, proven.
    pub incarnation: [u8; INCARNATION_LEN],
}

impl Mark {
    /// A mark that nobody else has.
    pub(super) fn draw(incarnation: [u8; INCARNATION_LEN]) -> Result<Self> {
        let mut bytes = [0; 8];
        getrandom::fill(&mut bytes).map_err(|e| {
            Error::new(Code::Socket, format!("no random numbers: {e}")).transient(Class::Resource)
        })?;
        let number = (u64::from_le_bytes(bytes) % MARKS).max(1);
        Ok(Mark { number, incarnation })
    }

    fn question(&self) -> ConnectionMessage {
        ConnectionMessage {
            incarnation: Some(incarnation::hex(&self.incarnation)),
            withdraw: Some(true),
            connections: vec![self.number],
            ..ConnectionMessage::default()
        }
    }
}

/// Ways to one peer's handshake port: by the address that everybody knows, or by those of its NICs; at least one. Those that
/// are more likely to work come first.
pub(super) struct Routes {
    pub all: Vec<Arc<dyn Route>>,
    /// Place of the address that everybody knows.
    pub usual: usize,
}

/// Asks until the peer confirms that its end is closed, for [`WORD_LIMIT`] at the most, and only until nobody listens at its
/// usual address any more: a peer that lives has its handshake port there. What refuses at the address of a NIC may be a firewall.
/// `false`: it has not.
pub(super) async fn raise(routes: &Routes, mark: &Mark) -> bool {
    ask_until(routes, mark, Instant::now() + WORD_LIMIT, false).await
}

/// Asks for [`FOLLOW_LIMIT`] at the most, also where nobody listens for the moment.
pub(super) async fn follow(routes: &Routes, mark: &Mark) -> bool {
    ask_until(routes, mark, Instant::now() + FOLLOW_LIMIT, true).await
}

async fn ask_until(routes: &Routes, mark: &Mark, deadline: Instant, goes_on: bool) -> bool {
    let expected = Some(incarnation::hex(&mark.incarnation));
    let is_only = routes.all.len() == 1;
    for (failures, (place, route)) in (0..).zip(routes.all.iter().enumerate().cycle()) {
        let left = deadline.saturating_duration_since(Instant::now());
        // The other half is for the next way.
        let limit = if is_only { left } else { left / 2 };
        match tokio::time::timeout(limit, route.exchange(mark.question())).await {
            // A successor cannot tell: the peer may only be stopped, and its name taken by another.
            Ok(Ok(answer)) => return answer.own_incarnation == expected && answer.withdraw == Some(true),
            Ok(Err(error)) if error.kind() == Class::Canceled || error.kind() == Class::Rejected => {
                return false
            }
            Ok(Err(error)) if error.errno() == libc::ECONNREFUSED && !goes_on && place == routes.usual => {
                return false
            }
            Ok(Err(error)) => tracing::debug!("{} was asked to close a connection: {error}", route.peer()),
            Err(_) if is_only => return false,
            Err(_) => {}
        }
        let pause = PAUSES.pause(failures);
        if Instant::now() + pause >= deadline {
            break;
        }
        tokio::time::sleep(pause).await;
    }
    false
}

/// Whether a peer's message asks to close connections.
pub(super) fn is_question(request: &ConnectionMessage) -> bool {
    request.withdraw == Some(true) && !request.connections.is_empty()
}

/// Closes our ends of the connections that a peer asks for, and answers when that is done.
pub(super) fn answer(
    shared: &Arc<Shared>,
    request: &ConnectionMessage,
) -> BoxFuture<'static, ConnectionMessage> {
    let own = incarnation::hex(&shared.incarnation);
    let fits = request.connections.len() <= MOST_MARKS;
    let meant = fits && request.incarnation.as_ref() == Some(&own);
    let marks: Arc<[u64]> = if meant { request.connections.as_slice().into() } else { Arc::default() };
    let shared = shared.clone();
    Box::pin(async move {
        let mut closed = meant;
        if meant {
            for reactor in shared.threads.reactors() {
                closed &= reactor.close_marked(marks.clone()).await.is_ok();
            }
        }
        ConnectionMessage {
            own_incarnation: Some(own),
            withdraw: Some(closed),
            ..ConnectionMessage::default()
        }
    })
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::net::IpAddr;

    use super::*;
    use crate::host_port::HostPort;
    use crate::transport::host::Offered;

    const INCARNATION: [u8; INCARNATION_LEN] = [7; INCARNATION_LEN];

    /// What a handshake port answers.
    #[derive(Clone, Copy)]
    enum Port {
        Confirms,
        Refuses,
    }

    impl Route for Port {
        fn peer(&self) -> &str {
            "peer"
        }

        fn offer(&self) -> Offered {
            Offered { offer: None, version: 0 }
        }

        fn refresh(&self) -> BoxFuture<'_, Result<()>> {
            Box::pin(pending())
        }

        fn rpc_address(&self) -> BoxFuture<'_, Result<HostPort>> {
            Box::pin(pending())
        }

        fn probe(&self) -> BoxFuture<'_, Result<()>> {
            Box::pin(pending())
        }

        fn exchange(&self, _: ConnectionMessage) -> BoxFuture<'_, Result<ConnectionMessage>> {
            let refused = std::io::Error::from_raw_os_error(libc::ECONNREFUSED);
            Box::pin(ready(match self {
                Port::Refuses => Err(Error::io(Code::Socket, "cannot connect", &refused)),
                Port::Confirms => Ok(ConnectionMessage {
                    own_incarnation: Some(incarnation::hex(&INCARNATION)),
                    withdraw: Some(true),
                    ..ConnectionMessage::default()
                }),
            }))
        }

        fn by_way_of(&self, _: IpAddr) -> Arc<dyn Route> {
            Arc::new(*self)
        }
    }

    #[test]
    fn only_the_usual_address_says_that_nobody_listens() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let mark = Mark { number: 1, incarnation: INCARNATION };
        for (what, ports, usual, closed) in [
            ("a firewall refuses", &[Port::Refuses, Port::Confirms][..], 1, true),
            ("it refuses behind the usual one too", &[Port::Confirms, Port::Refuses], 0, true),
            (
                "the peer is gone, and another host has the address of its NIC",
                &[Port::Refuses, Port::Confirms],
                0,
                false,
            ),
            ("nobody listens", &[Port::Refuses], 0, false),
        ] {
            let all = ports.iter().map(|port| Arc::new(*port) as Arc<dyn Route>).collect();
            assert_eq!(runtime.block_on(raise(&Routes { all, usual }, &mark)), closed, "{what}");
        }
    }
}
