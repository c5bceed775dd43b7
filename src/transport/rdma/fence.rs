//! Before a WRITE that was posted is posted again, the peer is asked to give up its end of the connection that failed:
//! packets of it that are still under way then find no queue pair, and cannot overtake the second posting. Peers of
//! this project only; upstream's do not know the message.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::route::Route;
use crate::error::Class;
use crate::handshake::ConnectionMessage;
use crate::runtime::backoff::Backoff;
use crate::transport::slice::Trail;

/// How long the peer has for an answer. Chosen: a peer that works answers within milliseconds; a dead one has no end
/// that could receive anything; with one that is only slow the risk of a late packet stays.
const LIMIT: Duration = Duration::from_secs(1);

/// How long a peer that does not answer is asked about ranges of failed WRITEs, and how often. Chosen: as over TCP, a process
/// that was stopped for a minute is mostly not continued, and whoever waits for a drained range hears of it soon.
const FOLLOW_LIMIT: Duration = Duration::from_secs(60);
const PAUSES: Backoff = Backoff { first: Duration::from_millis(50), longest: Duration::from_secs(1) };

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

/// Asks the peer that `route` leads to to give an end up, until it has answered: some time after a failure, bytes of WRITEs
/// that failed with it arrive no more. Then their trails end.
pub(super) async fn follow(route: Arc<dyn Route>, fence: Fence, trails: Vec<Trail>) {
    let message = fence.message();
    let deadline = Instant::now() + FOLLOW_LIMIT;
    for failures in 0.. {
        let left = deadline.saturating_duration_since(Instant::now());
        match tokio::time::timeout(left, route.exchange(message.clone())).await {
            Ok(Ok(answer)) if fence_holds(&message, &answer) => {
                return trails.into_iter().for_each(Trail::end)
            }
            Ok(Err(error)) if error.kind() != Class::Canceled => {}
            _ => return,
        }
        let pause = PAUSES.pause(failures);
        if Instant::now() + pause >= deadline {
            return;
        }
        tokio::time::sleep(pause).await;
    }
}

/// Asks the peer that `route` leads to to give up all these ends, by one message for each at the same time.
/// `false`: it has not confirmed all of them.
pub(super) async fn raise(route: &Arc<dyn Route>, fences: Vec<Fence>) -> bool {
    let mut all = true;
    let mut asked = tokio::task::JoinSet::new();
    for fence in fences {
        let (route, message) = (route.clone(), fence.message());
        asked.spawn(async move {
            let answer = tokio::time::timeout(LIMIT, route.exchange(message.clone())).await;
            matches!(answer, Ok(Ok(answer)) if fence_holds(&message, &answer))
        });
    }
    while let Some(holds) = asked.join_next().await {
        if !matches!(holds, Ok(true)) {
            all = false;
            tracing::debug!(
                "{} did not confirm that it gave up its end of a failed connection",
                route.peer()
            );
        }
    }
    all
}

/// The peer has given its end up. A successor cannot tell: the peer may only be stopped, and its name taken by another.
fn fence_holds(question: &ConnectionMessage, answer: &ConnectionMessage) -> bool {
    answer.reply_msg.is_empty() && answer.own_incarnation == question.incarnation
}
