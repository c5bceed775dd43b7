//! Before a WRITE that was posted goes another way, the peer is asked to give up its end of the connection that failed:
//! packets of it that are still under way then find no queue pair, and cannot overtake the second posting. Peers of this
//! project only; upstream's do not know the message.

use std::sync::Arc;
use std::time::Duration;

use super::connection::Connection;
use super::flight::{Flight, Loss};
use super::link::RdmaLink;
use super::rail::Rail;
use super::shared::Shared;
use crate::handshake::ConnectionMessage;
use crate::transport::slice::Op;

/// How long the peer has for an answer. One that is dead has no end left; of one that is only slow the risk stays.
const LIMIT: Duration = Duration::from_secs(1);

/// A connection whose other end is to go.
#[derive(PartialEq)]
pub struct Fence {
    own_path: String,
    peer: String,
    qp_num: Vec<u32>,
    incarnation: Option<String>,
}

impl Shared {
    /// What has to go before `flight`, lost on `connection`, is posted again; `None` if nothing of it can be under way, or
    /// it does no harm, or the peer would not understand.
    pub fn fence(
        &self,
        rail: &Rail,
        connection: &Connection,
        flight: &Flight,
        loss: Loss,
        link: &RdmaLink,
    ) -> Option<Fence> {
        let is_write = flight.slice.as_ref().is_some_and(|slice| slice.op == Op::Write);
        let own_path = self.own_path(&rail.nic);
        let harmless = !is_write || loss == Loss::Unconnected || own_path == rail.peer;
        let incarnation = link.target().desc.incarnation.clone();
        (!harmless && incarnation.is_some()).then(|| Fence {
            own_path,
            peer: rail.peer.clone(),
            qp_num: connection.numbers(),
            incarnation,
        })
    }

    /// The peer gives its end of a connection up.
    pub(super) fn withdrawn(&self, request: &ConnectionMessage) -> ConnectionMessage {
        let name = request.peer_nic_path.split_once('@').map_or("", |(_, name)| name);
        // Whether or not it is active: its port may be what failed.
        let nic = self.nics.iter().find(|nic| nic.name == name);
        let rail = nic.and_then(|nic| nic.rails.find(&request.local_nic_path));
        let known = |rail: &Arc<Rail>| {
            let connection = rail.connection();
            connection.is_some_and(|known| known.peer_numbers() == Some(request.qp_num.as_slice()))
        };
        if let Some(rail) = rail.filter(known) {
            rail.retire(withdrawn_by(&rail.peer));
        }
        ConnectionMessage::default()
    }
}

impl RdmaLink {
    /// Asks for all of them at once.
    pub async fn raise(&self, fences: Vec<Fence>) {
        let mut asked = tokio::task::JoinSet::new();
        for fence in fences {
            let route = self.route.clone();
            let message = ConnectionMessage {
                local_nic_path: fence.own_path,
                peer_nic_path: fence.peer,
                qp_num: fence.qp_num,
                incarnation: fence.incarnation,
                withdraw: Some(true),
                ..ConnectionMessage::default()
            };
            asked.spawn(async move { tokio::time::timeout(LIMIT, route.exchange(message)).await });
        }
        while let Some(answer) = asked.join_next().await {
            if !matches!(answer, Ok(Ok(Ok(_)))) {
                tracing::debug!(
                    "{} was not heard to give up its end of a failed connection",
                    self.route.peer()
                );
            }
        }
    }
}

fn withdrawn_by(peer: &str) -> crate::error::Error {
    use crate::error::{Class, Code, Error};
    Error::new(Code::Endpoint, format!("{peer} gave this connection up")).class(Class::Network, true)
}
