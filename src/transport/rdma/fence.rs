//! Before a WRITE that was posted is posted again, the peer is asked to give up its end of the connection that failed:
//! packets of it that are still under way then find no queue pair, and cannot overtake the second posting. Peers of
//! this project only; upstream's do not know the message.

use std::sync::Arc;
use std::time::Duration;

use super::route::Route;
use crate::handshake::ConnectionMessage;

/// How long the peer has for an answer. Chosen: a peer that works answers within milliseconds; a dead one has no end
/// that could receive anything; with one that is only slow the risk of a late packet stays.
const LIMIT: Duration = Duration::from_secs(1);

/// A connection whose other end the peer is to give up.
#[derive(PartialEq)]
pub(super) struct Fence {
    /// Path of our NIC.
    pub own_path: String,
    /// Path of the peer's NIC.
    pub peer: String,
    /// Our queue pair numbers.
    pub qp_num: Vec<u32>,
    /// The peer's incarnation.
    pub incarnation: Option<String>,
}

impl Fence {
    fn message(self) -> ConnectionMessage {
        ConnectionMessage {
            local_nic_path: self.own_path,
            peer_nic_path: self.peer,
            qp_num: self.qp_num,
            incarnation: self.incarnation,
            withdraw: Some(true),
            ..ConnectionMessage::default()
        }
    }
}

/// Asks the peer that `route` leads to to give up all these ends, by one message for each at the same time.
pub(super) async fn raise(route: &Arc<dyn Route>, fences: Vec<Fence>) {
    let mut asked = tokio::task::JoinSet::new();
    for fence in fences {
        let (route, message) = (route.clone(), fence.message());
        asked.spawn(async move { tokio::time::timeout(LIMIT, route.exchange(message)).await });
    }
    while let Some(answer) = asked.join_next().await {
        if !matches!(answer, Ok(Ok(Ok(_)))) {
            tracing::debug!(
                "{} did not confirm that it gave up its end of a failed connection",
                route.peer()
            );
        }
    }
}
