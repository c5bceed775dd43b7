//! What becomes of the connections that peers open: each goes to the next data-plane thread, as long as there is room.
//! Runs on the thread that listens.

use std::io;
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::Arc;

use super::inbound::Inbound;
use super::reactor::Reactor;
use super::shared::{set_options, Shared};
use super::sock::Socket;
use crate::runtime::descriptors;
use crate::runtime::tracked::Tracked;

/// Hands an accepted connection to a reactor, or closes it when there is no room for it. An error is only logged, because
/// the reactor tries its listener again at the next tick. `false`: descriptors are scarce, so what is to be closed is closed
/// before the next connection is accepted, whichever thread does it.
pub(super) fn distribute(shared: &Arc<Shared>, accepted: io::Result<Tracked<TcpStream>>) -> bool {
    let stream = match accepted {
        Ok(stream) => stream,
        Err(error) => {
            shared.inbound.dismiss_silent();
            if shared.log.admit("accept", "") {
                tracing::warn!("cannot accept data connections: {error}; trying again (check ulimit -n)");
            }
            return false;
        }
    };
    let is_scarce = descriptors::is_scarce(stream.as_raw_fd());
    // An error says that the peer is gone again.
    let Ok(peer) = stream.peer_addr().map(|peer| peer.ip().to_canonical()) else { return !is_scarce };
    let Some(admitted) = shared.inbound.admit(peer, is_scarce, || shared.threads.next_reactor()) else {
        shared.note_refused(&peer.to_string(), is_scarce);
        return !is_scarce;
    };
    if admitted.displaced {
        shared.stats.inbound_displaced.fetch_add(1, Relaxed);
        if shared.log.admit("inbound displaced", "") {
            tracing::warn!(
                "a data connection was closed to make room for {peer} (MC_TCP_MAX_INBOUND, ulimit -n)"
            );
        }
    }
    set_options(&stream, &shared.config, &shared.log);
    match Socket::new(stream, None) {
        Ok(socket) => {
            shared.stats.inbound_accepted.fetch_add(1, Relaxed);
            let held = shared.threads.reactors().first().filter(|_| is_scarce).map(Reactor::hold);
            admitted.reactor.serve(Box::new(Inbound::new(socket, shared, admitted.place, held)));
        }
        Err(_) => shared.inbound.leave(&admitted.place),
    }
    !is_scarce
}
