//! Opening segments, reading their descriptors again, notifying their owners.

use std::sync::Arc;

use super::segment::{self, Segment};
use super::{Engine, Local};
use crate::error::{Code, Error, Result};
use crate::handshake::{Handler, Notification};

/// The engine's own segment.
pub const LOCAL_SEGMENT: i32 = 0;

/// Descriptors read at once when all are: each may be a connection.
const READING_AT_ONCE: usize = 64;

impl Engine {
    /// Id of the segment called `name`; reads its descriptor if it is not open yet.
    pub fn open_segment(&self, name: &str) -> Result<i32> {
        let name = stripped(name)?;
        if name == self.local.name {
            return Ok(LOCAL_SEGMENT);
        }
        if let Some(segment) = self.segments.by_name(name) {
            return Ok(segment.id);
        }
        let (store, wanted) = (self.store.clone(), name.to_string());
        let known = self.control.block(async move { segment::read(&*store, &wanted).await });
        let known = known.map_err(|e| e.context(format!("open segment '{name}'")))?;
        if known.desc.name == self.local.name {
            return Ok(LOCAL_SEGMENT);
        }
        let revision = known.revision;
        let id = self.segments.insert(name, &self.store, known)?;
        if let Some(segment) = self.segments.by_id(id) {
            segment.start_watch(&self.control, revision);
        }
        Ok(id)
    }

    /// As [`Engine::open_segment`], but a cached descriptor is read again first; if that
    /// fails it stays, and the failure is returned.
    pub fn open_segment_fresh(&self, name: &str) -> Result<i32> {
        let cached = self.segments.by_name(stripped(name)?);
        if let Some(segment) = cached {
            let refreshed = segment.clone();
            let done = self.control.block(async move { refreshed.refresh().await });
            done.map_err(|e| e.context(format!("refresh segment '{name}'")))?;
            return Ok(segment.id);
        }
        self.open_segment(name)
    }

    /// Forgets a segment; nothing happens in the store.
    pub fn remove_segment(&self, name: &str) -> Result<()> {
        let name = stripped(name)?;
        if name == self.local.name {
            return Err(Error::invalid(
                "the engine's own segment cannot be removed; destroy the engine instead",
            ));
        }
        self.segments.remove(name);
        Ok(())
    }

    /// Reads every cached descriptor again, many at once. Failures are logged; the old ones stay.
    pub fn sync_segments(&self) {
        let refreshed = self.refresh_all();
        // Fails only when the engine is being destroyed.
        let _ = self.control.block(async move {
            refreshed.await;
            Ok(())
        });
    }

    pub(super) fn refresh_all(&self) -> impl std::future::Future<Output = ()> + Send + 'static {
        let (segments, log) = (self.segments.all(), self.log.clone());
        async move {
            let mut reading = tokio::task::JoinSet::new();
            let turns = Arc::new(tokio::sync::Semaphore::new(READING_AT_ONCE));
            for segment in segments {
                let turns = turns.clone();
                reading.spawn(async move {
                    // The semaphore is never closed.
                    let _turn = turns.acquire().await;
                    (segment.refresh().await, segment)
                });
            }
            while let Some(joined) = reading.join_next().await {
                let Ok((Err(error), segment)) = joined else { continue };
                if log.admit("refresh", &segment.opened_as) {
                    tracing::warn!("descriptor of '{}' not refreshed: {error}", segment.opened_as);
                }
            }
        }
    }

    /// Buffers of an open segment, as last read: address, length, location.
    pub fn segment_buffers(&self, id: i32) -> Result<Vec<(u64, u64, String)>> {
        if id == LOCAL_SEGMENT {
            let published = self.local.registry.published();
            return Ok(published.iter().map(|r| (r.addr, r.len, r.location.clone())).collect());
        }
        let known = self.segment(id)?.known();
        Ok(known.desc.buffers.iter().map(|b| (b.addr, b.length, b.name.clone())).collect())
    }

    /// The open segment with this id; -1 if there is none.
    pub(super) fn segment(&self, id: i32) -> Result<Arc<Segment>> {
        let never = || {
            Error::invalid(format!(
                "segment id {id} was never opened here, or removed; call openSegment first"
            ))
        };
        self.segments.by_id(id).ok_or_else(never)
    }

    /// Delivers a notification and waits for the receipt. -200 for an unknown id or a refusal.
    pub fn notify(&self, target: u64, notification: Notification) -> Result<()> {
        if target == LOCAL_SEGMENT as u64 {
            return notify_self(&self.local, notification);
        }
        let segment = i32::try_from(target).ok().and_then(|id| self.segments.by_id(id));
        let unknown = || {
            Error::new(
                Code::Metadata,
                format!("segment id {target} was never opened here, or removed; call openSegment first"),
            )
        };
        let segment = segment.ok_or_else(|| unknown().class(crate::error::Class::Argument, false))?;
        let client = self.client.clone();
        let done = self.control.block(async move {
            let address = segment.rpc_address().await?;
            let failed = match client.notify(&address, &notification).await {
                Err(error) if matches!(error.code(), Code::Socket | Code::Dns) => error,
                done => return done,
            };
            // The peer may have come back elsewhere.
            segment.forget_rpc_address();
            match segment.rpc_address().await {
                Ok(other) if other != address => client.notify(&other, &notification).await,
                _ => Err(failed),
            }
        });
        done.map_err(|e| e.context("notify"))
    }

    /// What peers see of this engine, and its queue of notifications.
    pub fn local(&self) -> &Arc<Local> {
        &self.local
    }
}

fn notify_self(local: &Local, notification: Notification) -> Result<()> {
    if local.notify(notification) {
        return Ok(());
    }
    Err(Error::new(Code::Metadata, "the own notification queue is full; fetch with getNotifsFromEngine"))
}

/// Segment names may be written with leading slashes.
fn stripped(name: &str) -> Result<&str> {
    let name = name.trim_start_matches('/');
    if name.is_empty() {
        return Err(Error::invalid("segment name is empty"));
    }
    Ok(name)
}
