//! Watches of keys, all on one stream, which is opened with the first watch and again when it breaks. Runs as one task
//! on the control thread.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use etcd_client::{EventType, WatchOptions, WatchRequestSender, WatchResponse, WatchResponseStream};
use parking_lot::Mutex;
use tokio::sync::mpsc::{unbounded_channel, UnboundedReceiver, UnboundedSender};
use tokio::time::sleep;

use super::Etcd;
use crate::error::Result;
use crate::metadata::backend::{News, Seen, Watch};
use crate::observe::log::RateLimit;
use crate::runtime::backoff::Backoff;

/// Pauses before a broken stream is opened again. Chosen: a server that is back is heard again within two seconds.
const PAUSES: Backoff = Backoff { first: Duration::from_millis(50), longest: Duration::from_secs(2) };

enum Order {
    Add { id: i64, key: String, since: i64, seen: Seen },
    Remove(i64),
}

/// Orders for the task.
pub(super) struct Watches {
    orders: UnboundedSender<Order>,
    /// Taken by the task.
    received: Mutex<Option<UnboundedReceiver<Order>>>,
    next_id: std::sync::atomic::AtomicI64,
}

impl Default for Watches {
    fn default() -> Self {
        let (orders, received) = unbounded_channel();
        Watches { orders, received: Mutex::new(Some(received)), next_id: 1.into() }
    }
}

impl Watches {
    /// Watches `key` from the revision after `since`.
    pub(super) fn add(&self, key: String, since: i64, seen: Seen) -> Watch {
        let id = self.next_id.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        // Fails only when the engine is being destroyed.
        let _ = self.orders.send(Order::Add { id, key, since, seen });
        let orders = self.orders.clone();
        Watch(Box::new(move || drop(orders.send(Order::Remove(id)))))
    }
}

struct Watched {
    key: String,
    /// Everything up to this revision is known; 0: nothing is.
    since: i64,
    seen: Seen,
}

type Table = HashMap<i64, Watched>;

/// Serves the watches of `etcd` for as long as the future is polled.
pub(super) async fn run(etcd: Arc<Etcd>) {
    let Some(mut orders) = etcd.watches.received.lock().take() else { return };
    let mut table = Table::new();
    let mut failures: u64 = 0;
    let log = RateLimit::default();
    while let Some(order) = orders.recv().await {
        apply(order, &mut table);
        while !table.is_empty() {
            let begun = Instant::now();
            let served = stream(&etcd, &mut orders, &mut table).await;
            if begun.elapsed() > PAUSES.longest {
                failures = 0;
            }
            match served {
                Ok(()) => {}
                Err(error) => {
                    if log.admit("watch", "") {
                        tracing::warn!("changes of descriptors are not heard of for a while: {error}");
                    }
                    sleep(PAUSES.pause(failures)).await;
                    failures = failures.saturating_add(1);
                }
            }
        }
    }
}

fn apply(order: Order, table: &mut Table) {
    match order {
        Order::Add { id, key, since, seen } => drop(table.insert(id, Watched { key, since, seen })),
        Order::Remove(id) => drop(table.remove(&id)),
    }
}

fn options(id: i64, watched: &Watched) -> Option<WatchOptions> {
    let options = WatchOptions::new().with_watch_id(id);
    Some(if watched.since > 0 { options.with_start_revision(watched.since + 1) } else { options })
}

/// Opens a stream with every watch of the table and serves it until it breaks, or no watch is left.
async fn stream(etcd: &Etcd, orders: &mut UnboundedReceiver<Order>, table: &mut Table) -> Result<()> {
    let Some((id, first)) = table.iter().next() else { return Ok(()) };
    let (key, with) = (first.key.clone(), options(*id, first));
    let mut to_send: Vec<i64> = table.keys().copied().filter(|other| other != id).collect();
    let most = etcd.most_bytes;
    let opened = etcd.call("watch", |c| async move {
        c.watch_client().max_decoding_message_size(most).watch(key, with).await
    });
    let (mut sender, mut responses) = opened.await?.split();
    while !table.is_empty() {
        // Sending waits while the stream is full, so answers are taken meanwhile.
        tokio::select! {
            biased;
            response = responses.message() => match response {
                Ok(Some(response)) => heard(response, table, &mut to_send)?,
                Ok(None) => return Err(super::unreachable("the server closed the watch stream".into())),
                Err(error) => return Err(super::failed(&error)),
            },
            sent = send_next(&mut sender, &to_send, table), if !to_send.is_empty() => {
                to_send.pop();
                sent?;
            }
            order = orders.recv() => match order {
                Some(Order::Remove(id)) => {
                    if table.remove(&id).is_some() && !to_send.contains(&id) {
                        cancel(&mut sender, &mut responses, table, &mut to_send, id).await?;
                    }
                }
                Some(order) => {
                    if let Order::Add { id, .. } = &order {
                        to_send.push(*id);
                    }
                    apply(order, table);
                }
                None => return Ok(()),
            },
        }
    }
    Ok(())
}

/// Sends the last of `to_send`, which stays there until it is done. Cancel safe: a send that waits has sent nothing.
async fn send_next(sender: &mut WatchRequestSender, to_send: &[i64], table: &Table) -> Result<()> {
    let Some((id, watched)) = to_send.last().and_then(|id| Some((*id, table.get(id)?))) else {
        return Ok(());
    };
    let sent = sender.watch(watched.key.clone(), options(id, watched)).await;
    sent.map_err(|e| super::failed(&e))
}

async fn cancel(
    sender: &mut WatchRequestSender,
    responses: &mut WatchResponseStream,
    table: &mut Table,
    to_send: &mut Vec<i64>,
    id: i64,
) -> Result<()> {
    let sent = sender.cancel(id);
    tokio::pin!(sent);
    loop {
        tokio::select! {
            done = &mut sent => return done.map_err(|e| super::failed(&e)),
            response = responses.message() => match response {
                Ok(Some(response)) => heard(response, table, to_send)?,
                // The next reading of the stream gives the error.
                _ => return Ok(()),
            },
        }
    }
}

fn heard(response: WatchResponse, table: &mut Table, to_send: &mut Vec<i64>) -> Result<()> {
    let id = response.watch_id();
    let Some(watched) = table.get_mut(&id) else { return Ok(()) };
    let revision = response.header().map_or(0, |header| header.revision());
    if response.canceled() {
        if response.compact_revision() == 0 {
            return Err(super::unreachable(format!(
                "the server ended a watch: {}",
                response.cancel_reason()
            )));
        }
        // The changes in between are gone from the server's history.
        watched.since = 0;
        to_send.insert(0, id);
        return Ok(());
    }
    if response.created() {
        if watched.since == 0 {
            (watched.seen)(News::Unknown);
        } else if revision < watched.since {
            // The server counts from the beginning: its data was lost.
            table.values_mut().for_each(|watched| watched.since = 0);
            return Err(super::unreachable("etcd has lost its data; descriptors are read again".into()));
        }
    }
    for event in response.events() {
        let Some(kv) = event.kv() else { continue };
        (watched.seen)(match event.event_type() {
            EventType::Put => News::Put(kv.value(), kv.mod_revision()),
            EventType::Delete => News::Deleted,
        });
        watched.since = watched.since.max(kv.mod_revision());
    }
    Ok(())
}
