//! A segment, as the transports' links know it.

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
        Box::pin(async { self.segment()?.rpc_address().await })
    }

    fn probe(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let address = self.segment()?.rpc_address().await?;
            self.client.probe(&address).await
        })
    }

    fn exchange(&self, message: ConnectionMessage) -> BoxFuture<'_, Result<ConnectionMessage>> {
        Box::pin(async move {
            let segment = self.segment()?;
            let address = segment.rpc_address().await?;
            let answer = self.client.connection(&address, &message).await;
            if answer.as_ref().is_err_and(|error| matches!(error.code(), Code::Socket | Code::Dns)) {
                segment.forget_rpc_address();
                segment.suspect();
            }
            answer
        })
    }
}

#[cfg(test)]
mod tests;
