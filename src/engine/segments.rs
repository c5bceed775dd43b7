//! Opening segments, reading their descriptors again, notifying their owners.

use std::future::{ready, Future};
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::local::Local;
use super::segment::table::{Closed, Found, Left, Segments, LINGER};
use super::segment::{self, Segment, OPEN_LIMIT};
use super::Engine;
use crate::error::{Class, Code, Error, Result};
use crate::handshake::{Handler, Notification};
use crate::metadata::Store;
use crate::observe::log::RateLimit;
use crate::runtime::control::Control;
use crate::runtime::{instant, BoxFuture};

/// Id of the engine's own segment; upstream's value.
pub(super) const LOCAL_SEGMENT: i32 = 0;

/// Descriptors read at once when all are read: from a store, and from the peers themselves. Chosen: one store answers
/// for all; each peer answers for itself only, and those that do not answer must not hold the others up.
const READING_AT_ONCE: (usize, usize) = (64, 1024);
/// How long reading all of them may take. Chosen: a caller waits for it; what could not be read by then keeps its old
/// descriptor.
pub(super) const ALL_LIMIT: Duration = Duration::from_secs(30);
/// How long a call waits for the descriptor of a closed segment that it uses. Chosen: the default limit of a store's
/// operation and of a connect.
pub(super) const REOPEN_LIMIT: Duration = Duration::from_secs(5);

impl Engine {
    /// Id of the segment called `name`, which counts as opened once more; reads its descriptor if it is not open yet.
    pub fn open_segment(&self, name: &str) -> Result<i32> {
        let name = stripped(name)?;
        if name == self.local.name {
            return Ok(LOCAL_SEGMENT);
        }
        if let Some(segment) = self.segments.open(name) {
            if segment.may_have_restarted(self.config.open_age) {
                segment.read_for_opening(|| {
                    let read = self.refresh_within(&segment, OPEN_LIMIT);
                    !read.is_err_and(|error| error.kind() == Class::Timeout)
                });
            } else {
                segment.revalidate(&self.control);
            }
            return Ok(segment.id);
        }
        let (store, wanted) = (self.store.clone(), name.to_string());
        let reading = self.segments.begin_reading();
        let known = self.control.block(async move { segment::read(&*store, &wanted).await });
        let known = known.map_err(|e| e.context(format!("open segment '{name}'")))?;
        if known.name == self.local.name {
            return Ok(LOCAL_SEGMENT);
        }
        let segment = self.segments.insert(name, &self.store, known, reading)?;
        segment.start_watch(&self.control);
        Ok(segment.id)
    }

    /// As [`Engine::open_segment`], but a cached descriptor is read again first; if that
    /// fails it stays, and the failure is returned.
    pub fn open_segment_fresh(&self, name: &str) -> Result<i32> {
        let cached = self.segments.by_name(stripped(name)?);
        if let Some(segment) = cached {
            let refreshed = segment.clone();
            let done = self.control.block(async move { refreshed.refresh().await });
            done.map_err(|e| e.context(format!("refresh segment '{name}'")))?;
            // Unless it was closed meanwhile.
            if let Some(segment) = self.segments.open(&segment.opened_as) {
                return Ok(segment.id);
            }
        }
        self.open_segment(name)
    }

    /// Closes a segment that was opened once more often than it was closed since; the last one to close it gives back
    /// what it holds, after a while. Its id works on: a use of it reads the descriptor again. Any id is fine.
    pub fn close_segment(&self, id: i32) {
        close(&self.segments, id, &self.control);
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

    /// Reads every cached descriptor again, many at once, for at most `ALL_LIMIT`. One that cannot be read stays as it
    /// is, and the failure is logged.
    pub fn sync_segments(&self) {
        let refreshed = self.refresh_all();
        // Fails only when the engine is being destroyed.
        let _ = self.control.block(async move {
            refreshed.await;
            Ok(())
        });
    }

    pub(super) fn refresh_all(&self) -> impl Future<Output = ()> + Send + 'static {
        let (segments, log) = (self.segments.all().unwrap_or_else(none_listed), self.log.clone());
        let stored = !self.store.is_peer_to_peer();
        read_all(segments, stored, log)
    }

    /// Shows the buffers of an open segment, as last read: address, length, location of each. Returns how many there are.
    /// `ERR_MEMORY` if the own ones cannot be listed.
    pub fn segment_buffers(&self, id: i32, mut show: impl FnMut(u64, u64, &str)) -> Result<usize> {
        if id == LOCAL_SEGMENT {
            let published = self.local.registry.published()?;
            published.iter().for_each(|region| show(region.addr, region.len, &region.location));
            return Ok(published.len());
        }
        let known = self.segment(id)?.known();
        let Some(buffers) = known.buffers() else { return Ok(0) };
        let count = buffers.len();
        buffers.for_each(|(addr, len, name)| show(addr, len, name));
        Ok(count)
    }

    /// The open segment with this id; -1 if there is none.
    pub(super) fn segment(&self, id: i32) -> Result<Arc<Segment>> {
        let never = || never_opened(id);
        let segment = match self.segments.find(id).ok_or_else(never)? {
            Found::Open(segment) => segment,
            Found::Closed(closed) => {
                let done = self.control.block(limited(REOPEN_LIMIT, self.reopened(closed)));
                done.map_err(|e| e.context(format!("segment id {id} was closed, and is opened again")))?
            }
        };
        segment.revalidate(&self.control);
        Ok(segment)
    }

    /// A segment that was closed, open again because its id is used.
    fn reopened(&self, closed: Arc<Closed>) -> impl Future<Output = Result<Arc<Segment>>> + Send + 'static {
        reopened(self.segments.clone(), closed, self.store.clone(), Arc::downgrade(&self.control))
    }

    /// Reads the descriptor again. If that fails, or takes longer than `limit`, the cached one stays.
    pub(super) fn refresh_within(&self, segment: &Arc<Segment>, limit: Duration) -> Result<()> {
        let refreshed = segment.clone();
        let done = self.control.block(limited(limit, async move { refreshed.refresh().await }));
        done.inspect_err(|error| {
            tracing::debug!("descriptor of '{}' not refreshed: {error}", segment.opened_as);
        })
    }

    /// Delivers a notification and waits for the receipt. -200 for an unknown id or a refusal.
    pub fn notify(&self, target: u64, notification: Notification) -> Result<()> {
        let sent = self.delivery(target, notification)?;
        self.control.block(sent).map_err(|e| e.context("notify"))
    }

    /// The delivery of a notification, for the control plane.
    pub(super) fn delivery(
        &self,
        target: u64,
        notification: Notification,
    ) -> Result<BoxFuture<'static, Result<()>>> {
        if target == LOCAL_SEGMENT as u64 {
            return Ok(Box::pin(ready(notify_self(&self.local, notification))));
        }
        let found = i32::try_from(target).ok().and_then(|id| self.segments.find(id));
        let unknown = || {
            Error::new(
                Code::Metadata,
                format!("segment id {target} was never opened here, or removed; call openSegment first"),
            )
        };
        let found = found.ok_or_else(|| unknown().permanent(Class::Argument))?;
        // Not read again here: whoever polls a batch waits for no peer.
        let segment: BoxFuture<'static, Result<Arc<Segment>>> = match found {
            Found::Open(segment) => {
                segment.revalidate(&self.control);
                Box::pin(ready(Ok(segment)))
            }
            Found::Closed(closed) => Box::pin(self.reopened(closed)),
        };
        let client = self.client.clone();
        let limit = self.config.handshake_timeout;
        Ok(Box::pin(async move {
            let segment = segment.await?;
            // One after the other, so that they arrive in the order in which they were sent.
            let turn = tokio::time::timeout(limit, segment.notifying.lock()).await;
            let _turn = turn.map_err(|_| {
                let text = "earlier notifications to this peer are still on their way; is it stopped?";
                Error::new(Code::Socket, text).transient(Class::Timeout).peer(&segment.opened_as)
            })?;
            let address = segment.rpc_address().await?;
            let failed = match client.notify(&address, &notification).await {
                Err(error) if matches!(error.code(), Code::Socket | Code::Dns) => error,
                done => return done,
            };
            // The peer may have come back elsewhere.
            segment.forget_rpc_address();
            segment.suspect();
            match segment.rpc_address().await {
                Ok(other) if other != address => client.notify(&other, &notification).await,
                _ => Err(failed),
            }
        }))
    }

    /// What peers see of this engine, and its queue of notifications.
    pub fn local(&self) -> &Arc<Local> {
        &self.local
    }
}

/// Nothing stands behind this id.
pub(super) fn never_opened(id: i32) -> Error {
    if id < 0 {
        return Error::invalid(format!("segment id {id} is what an openSegment that failed returned"));
    }
    Error::invalid(format!("segment id {id} was never opened here, or removed; call openSegment first"))
}

fn none_listed(error: Error) -> Vec<Arc<Segment>> {
    tracing::warn!("descriptors are not read again: {error}");
    Vec::new()
}

/// Closes a segment once, and sees to it that it is given up when it has lingered.
pub(super) fn close(segments: &Arc<Segments>, id: i32, control: &Control) {
    let Left { gone, sweep } = segments.close(id, instant::now());
    drop(gone);
    if !sweep {
        return;
    }
    let segments = Arc::downgrade(segments);
    control.spawn(async move {
        loop {
            tokio::time::sleep(LINGER).await;
            let Some(segments) = segments.upgrade() else { return };
            if !segments.sweep(instant::now()).sweep {
                return;
            }
        }
    });
}

/// A segment that was closed, read again and watched.
pub(super) async fn reopened(
    segments: Arc<Segments>,
    closed: Arc<Closed>,
    store: Arc<dyn Store>,
    control: Weak<Control>,
) -> Result<Arc<Segment>> {
    let segment = segments.reopen(&closed, &store).await?;
    if let Some(control) = control.upgrade() {
        segment.start_watch(&control);
    }
    Ok(segment)
}

/// Reads all of these again, many at once, for at most [`ALL_LIMIT`]; `stored`: from one store, not from their owners.
pub(super) async fn read_all(segments: Vec<Arc<Segment>>, stored: bool, log: Arc<RateLimit>) {
    let at_once = if stored { READING_AT_ONCE.0 } else { READING_AT_ONCE.1 };
    let reading = async move {
        let mut reading = tokio::task::JoinSet::new();
        let turns = Arc::new(tokio::sync::Semaphore::new(at_once));
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
            // A store that does not answer now will not answer for the others. To return ends their readings.
            if stored && matches!(error.kind(), Class::Network | Class::Timeout) {
                return;
            }
        }
    };
    if tokio::time::timeout(ALL_LIMIT, reading).await.is_err() {
        tracing::warn!("not all descriptors were read again within {ALL_LIMIT:?}");
    }
}

/// What `read` brings within `limit`.
pub(super) async fn limited<T>(limit: Duration, read: impl Future<Output = Result<T>>) -> Result<T> {
    let done = tokio::time::timeout(limit, read).await;
    done.unwrap_or_else(|_| Err(late()))
}

fn late() -> Error {
    Error::new(Code::Socket, "no descriptor in time").transient(Class::Timeout)
}

fn notify_self(local: &Local, notification: Notification) -> Result<()> {
    if local.notify(notification) {
        return Ok(());
    }
    Err(Error::new(Code::Metadata, "the own notification queue is full; fetch with getNotifsFromEngine"))
}

/// Segment names may be written with leading slashes.
pub(super) fn stripped(name: &str) -> Result<&str> {
    let name = name.trim_start_matches('/');
    if name.is_empty() {
        return Err(Error::invalid("segment name is empty"));
    }
    Ok(name)
}
