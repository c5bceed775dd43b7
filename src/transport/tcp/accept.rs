//! What becomes of the connections that peers open: each goes to the next data-plane thread, as long as there is room.
//! Runs on the thread that listens.

use std::io;
use std::net::TcpStream;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::Arc;

use super::inbound::Inbound;
use super::shared::{set_options, Shared};
use super::sock::Socket;
use crate::runtime::tracked::Tracked;

/// Hands an accepted connection to a reactor, or closes it when too many are open. An error is only logged, because the
/// reactor tries its listener again at the next tick.
pub(super) fn distribute(shared: &Arc<Shared>, accepted: io::Result<Tracked<TcpStream>>) {
    let stream = match accepted {
        Ok(stream) => stream,
        Err(error) => {
            if shared.log.admit("accept", "") {
                tracing::warn!("cannot accept data connections: {error}; trying again (check ulimit -n)");
            }
            return;
        }
    };
    if shared.inbound.fetch_add(1, Relaxed) >= shared.config.tcp_max_inbound {
        shared.inbound_ended();
        shared.stats.inbound_refused.fetch_add(1, Relaxed);
        if shared.log.admit("inbound table full", "") {
            let most = shared.config.tcp_max_inbound;
            tracing::warn!("data connection refused: {most} are open already (MC_TCP_MAX_INBOUND)");
        }
        return;
    }
    set_options(&stream, &shared.config);
    match Socket::new(stream) {
        Ok(socket) => {
            shared.stats.inbound_accepted.fetch_add(1, Relaxed);
            shared.next_reactor().serve(Box::new(Inbound::new(socket, shared)));
        }
        Err(_) => shared.inbound_ended(),
    }
}
