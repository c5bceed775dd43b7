//! A segment, as the transports' links know it.

use std::net::IpAddr;
use std::sync::{Arc, Weak};

use arc_swap::ArcSwap;

use super::known::Known;
use super::segment::Segment;
use crate::error::{Class, Code, Error, Result};
use crate::handshake::{Client, ConnectionMessage};
use crate::host_port::HostPort;
use crate::runtime::BoxFuture;
use crate::transport::host::{Offered, Route};

/// The way to the peer of a segment, for the transport of one row. Weak: a link must not keep its segment alive.
pub(super) struct SegmentRoute {
    row: usize,
    segment: Weak<Segment>,
    /// As the segment knew it when a link asked last: transfers under way go on after the segment was closed.
    last: ArcSwap<Known>,
    peer: String,
    client: Client,
    /// Instead of the one in the peer's handshake address.
    host: Option<IpAddr>,
}

impl SegmentRoute {
    /// A route to what `segment` leads to now.
    pub(super) fn new(row: usize, segment: &Arc<Segment>, client: &Client) -> Self {
        let known = segment.known();
        SegmentRoute {
            row,
            segment: Arc::downgrade(segment),
            peer: known.name.clone(),
            last: ArcSwap::new(known),
            client: client.clone(),
            host: None,
        }
    }

    /// An error of class CANCELED once the segment was closed.
    fn segment(&self) -> Result<Arc<Segment>> {
        let closed = || Error::new(Code::Socket, "the segment was closed").permanent(Class::Canceled);
        self.segment.upgrade().ok_or_else(|| closed().peer(&self.peer))
    }
}

impl Route for SegmentRoute {
    fn peer(&self) -> &str {
        &self.peer
    }

    fn offer(&self) -> Offered {
        let last = self.last.load();
        let offered =
            |known: &Known| Offered { offer: known.offer(self.row).cloned(), version: known.version };
        let Some(segment) = self.segment.upgrade() else { return offered(&last) };
        let known = segment.known();
        // A version is never used for two texts, so the same version means the same text.
        if known.version != last.version {
            // Of two threads, the one with the older text may come last.
            self.last.rcu(|last| if known.version > last.version { known.clone() } else { last.clone() });
        }
        offered(&known)
    }

    fn refresh(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async {
            let segment = self.segment()?;
            segment.refresh().await
        })
    }

    fn rpc_address(&self) -> BoxFuture<'_, Result<HostPort>> {
        Box::pin(async {
            let address = self.segment()?.rpc_address().await?;
            Ok(match self.host {
                Some(host) => HostPort { host: host.to_string(), ..address },
                None => address,
            })
        })
    }

    fn probe(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let address = self.rpc_address().await?;
            self.client.probe(&address).await
        })
    }

    fn has_answered(&self) -> bool {
        let is_heard = |segment: Arc<Segment>| segment.is_read_from_its_owner();
        self.host.is_none() && self.last.load().is_ours() && self.segment.upgrade().is_some_and(is_heard)
    }

    fn exchange(&self, message: ConnectionMessage) -> BoxFuture<'_, Result<ConnectionMessage>> {
        Box::pin(async move {
            let segment = self.segment()?;
            let address = self.rpc_address().await?;
            let answer = self.client.connection(&address, &message).await;
            // Another address that does not answer says nothing of the one that is known.
            let is_usual = self.host.is_none();
            if is_usual
                && answer.as_ref().is_err_and(|error| {
                    // The last: what listens there is no engine of this cluster.
                    matches!(error.code(), Code::Socket | Code::Dns) || error.kind() == Class::Protocol
                })
            {
                segment.forget_rpc_address();
                segment.suspect();
            }
            answer
        })
    }

    fn by_way_of(&self, host: IpAddr) -> Arc<dyn Route> {
        Arc::new(SegmentRoute {
            row: self.row,
            segment: self.segment.clone(),
            last: ArcSwap::new(self.last.load_full()),
            peer: self.peer.clone(),
            client: self.client.clone(),
            host: Some(host),
        })
    }
}

#[cfg(test)]
mod tests;
