//! The keys of this engine: claimed where no live engine has them, kept from expiring, written again when they are
//! lost, and removed at the end. What belongs to another engine is neither written over nor removed.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::{decode_address, Keyed};
use crate::error::{Class, Code, Error, Result};
use crate::host_port::HostPort;
use crate::json;
use crate::metadata::backend::{refused, unreachable, Entry, Put, Version};
use crate::runtime::aside;

/// How long the owner of a name has to show that it is alive. Chosen: a live engine answers within milliseconds, and an
/// engine that takes the name of a dead one over starts a second later at most.
const PROBE_LIMIT: Duration = Duration::from_secs(1);
/// Writes tried against others that keep changing the key. Chosen: a write is lost only if somebody else's comes
/// between our reading and our writing; eight in a row are no accident.
const ROUNDS: usize = 8;

/// Errors of this host. They do not tell whether the engine that was asked is alive.
const OWN_TROUBLE: [i32; 9] = [
    libc::EMFILE,
    libc::ENFILE,
    libc::ENOMEM,
    libc::ENOBUFS,
    libc::ENETDOWN,
    libc::ENETUNREACH,
    libc::EADDRNOTAVAIL,
    libc::EACCES,
    libc::EPERM,
];

/// The keys of this engine.
#[derive(Default)]
pub(super) struct Claims {
    rpc: Option<Claim>,
    descriptor: Option<Claim>,
    /// What was not published as far as was told, and may be there: an answer may have been lost. Nobody looks after it.
    doubtful: Vec<Claim>,
    /// The name was found to be another engine's.
    lost_name: bool,
    /// The engine is being destroyed: nothing is published any more.
    closed: bool,
}

/// One key of this engine.
#[derive(Clone)]
struct Claim {
    key: String,
    value: Arc<[u8]>,
    /// As it was written last; `None` if it may be gone.
    version: Option<Version>,
}

impl Claims {
    /// Notes what a write that has failed may have left.
    fn note(&mut self, wrote: &Result<Version>, key: &str, value: &Arc<[u8]>) {
        self.doubtful.retain(|claim| claim.key != key);
        if wrote.as_ref().is_err_and(Error::retryable) {
            self.doubtful.push(Claim { key: key.to_string(), value: value.clone(), version: None });
        }
    }

    /// Takes out what is or may be there under a key.
    fn take(&mut self, key: &str) -> Option<Claim> {
        let is_it = |claim: &mut Claim| claim.key == key;
        let known = [&mut self.rpc, &mut self.descriptor].into_iter().find_map(|claim| claim.take_if(is_it));
        let doubtful = self.doubtful.extract_if(.., is_it).next();
        known.or(doubtful)
    }
}

/// Which entries of other engines a write may replace.
#[derive(Clone, Copy)]
enum Replaces<'a> {
    None,
    /// Those of engines that are dead: the name.
    OfTheDead,
    /// Those of earlier engines that had the name, which is this engine's by this claim: the descriptor.
    UnderName(Option<&'a Claim>),
}

/// Whether an entry that stands in the way may be replaced.
enum Owner {
    /// It is this engine's.
    Ours,
    /// Whoever wrote it is dead, for this reason.
    Dead(String),
}

impl Keyed {
    /// Publishes the handshake address unless another engine lives under the name.
    pub(super) async fn claim_name(&self, key: String, value: Arc<[u8]>) -> Result<()> {
        let mut claims = self.claims.lock().await;
        let patience = self.patience.at_start();
        let wrote = patience.bear(|| self.write(&key, &value, None, Replaces::OfTheDead)).await;
        claims.note(&wrote, &key, &value);
        let version = wrote.map_err(|e| self.not_published(e, &key, value.len()))?;
        claims.rpc = Some(Claim { key, value, version: Some(version) });
        self.published.notify_one();
        Ok(())
    }

    /// Publishes the descriptor, over what this engine published before.
    pub(super) async fn publish_descriptor(&self, key: String, value: Arc<[u8]>) -> Result<()> {
        let mut claims = self.claims.lock().await;
        if claims.closed {
            let text = "the engine is being destroyed";
            return Err(Error::new(Code::Metadata, text).permanent(Class::Canceled));
        }
        let before = claims.descriptor.as_ref().and_then(|claim| claim.version.clone());
        let first = claims.descriptor.is_none();
        let needs_name = first || claims.lost_name;
        let rpc = claims.rpc.clone();
        let replaces = if first { Replaces::UnderName(rpc.as_ref()) } else { Replaces::None };
        let write = || async {
            if needs_name {
                self.check_name(rpc.as_ref()).await?;
            }
            self.write(&key, &value, before.clone(), replaces).await
        };
        let wrote = self.patience.bear(write).await;
        claims.note(&wrote, &key, &value);
        let version = wrote.map_err(|e| self.not_published(e, &key, value.len()))?;
        claims.descriptor = Some(Claim { key, value, version: Some(version) });
        self.published.notify_one();
        Ok(())
    }

    /// Removes a key if this engine wrote it; from now on it publishes nothing.
    pub(super) async fn withdraw(&self, key: String) -> Result<()> {
        let mut claims = self.claims.lock().await;
        claims.closed = true;
        let Some(claim) = claims.take(&key) else { return Ok(()) };
        let removed = self.remove(&claim).await;
        if removed.is_err() {
            claims.doubtful.push(claim);
        }
        removed
    }

    /// Removes what this engine has written under a key, in whichever version.
    async fn remove(&self, claim: &Claim) -> Result<()> {
        let key = &claim.key;
        let delete = || async {
            if let Some(version) = &claim.version {
                if self.backend.delete(key.clone(), version.clone()).await? {
                    return Ok(());
                }
            }
            // A write whose answer was lost leaves another version of ours.
            match self.backend.get(key.clone(), true).await? {
                Some(entry) if self.is_ours(claim, &entry).await? => {
                    self.backend.delete(key.clone(), entry.version).await.map(drop)
                }
                _ => Ok(()),
            }
        };
        self.patience.bear(delete).await.map_err(|e| e.context(format_args!("remove key '{key}'")))
    }

    /// Puts off the expiry of the claims and writes again what is gone. Never returns.
    pub(super) async fn look_after_claims(&self) {
        loop {
            let idle = {
                let claims = self.claims.lock().await;
                claims.rpc.is_none() && claims.descriptor.is_none()
            };
            match idle {
                true => self.published.notified().await,
                false => tokio::time::sleep(self.interval).await,
            }
            if let Err(error) = self.look_after_claims_once().await {
                if self.log.admit("upkeep", "") {
                    tracing::warn!("the keys in {} are not looked after: {error}", self.backend.name());
                }
            }
        }
    }

    pub(super) async fn look_after_claims_once(&self) -> Result<()> {
        self.patience.bear(|| self.backend.beat()).await?;
        let mut claims = self.claims.lock().await;
        if claims.closed {
            return Ok(());
        }
        let Claims { rpc, descriptor, lost_name, .. } = &mut *claims;
        if let Some(name) = rpc {
            let kept = self.look_after(name).await;
            let is_refused =
                |outcome: &Result<()>| outcome.as_ref().is_err_and(|e| e.kind() == Class::Rejected);
            // A store refuses for other reasons too, such as having no room.
            let is_lost = is_refused(&kept) && is_refused(&self.check_name(Some(name)).await);
            *lost_name = is_lost || *lost_name && kept.is_err();
            if let (true, Some(descriptor)) = (is_lost, &mut *descriptor) {
                // Beside the address of another engine it would lead peers to two engines at once.
                self.remove(descriptor).await?;
                descriptor.version = None;
            }
            kept?;
        }
        match descriptor {
            Some(descriptor) => self.look_after(descriptor).await,
            None => Ok(()),
        }
    }

    async fn look_after(&self, claim: &mut Claim) -> Result<()> {
        let kept = || async {
            match &claim.version {
                Some(version) => {
                    self.backend.keep(claim.key.clone(), claim.value.clone(), version.clone()).await
                }
                None => Ok(false),
            }
        };
        if self.patience.bear(kept).await? {
            return Ok(());
        }
        claim.version = None;
        let wrote = self.patience.bear(|| self.write(&claim.key, &claim.value, None, Replaces::None)).await;
        claim.version = Some(wrote.map_err(|e| e.context(format_args!("publish '{}' again", claim.key)))?);
        tracing::warn!("key '{}' was gone or changed in {}; published again", claim.key, self.backend.name());
        Ok(())
    }

    /// Writes a key if it is absent, has the version `over`, is ours in any version, or `replaces` allows it.
    async fn write(
        &self,
        key: &str,
        value: &Arc<[u8]>,
        mut over: Option<Version>,
        replaces: Replaces<'_>,
    ) -> Result<Version> {
        for _ in 0..ROUNDS {
            let put = self.backend.put(key.to_string(), value.clone(), over.take()).await?;
            if let Put::Done(version) = put {
                return Ok(version);
            }
            let Some(entry) = self.backend.get(key.to_string(), true).await? else { continue };
            if let Owner::Dead(why) = self.owner(key, value, &entry, replaces).await? {
                if !self.may_take_over {
                    return Err(refused(format!(
                        "key '{key}' exists and MC_METADATA_TAKE_OVER=0 refuses to take it over although {why}; \
                         remove the key"
                    )));
                }
                tracing::warn!("key '{key}' in {} is taken over: {why}", self.backend.name());
            }
            over = Some(entry.version);
        }
        Err(refused(format!("key '{key}' is changed all the time by somebody else"))
            .transient(Class::Metadata))
    }

    async fn owner(
        &self,
        key: &str,
        value: &Arc<[u8]>,
        entry: &Entry,
        replaces: Replaces<'_>,
    ) -> Result<Owner> {
        let seen = Seen::of(entry, value).await?;
        if seen.incarnation.is_some_and(|incarnation| incarnation == self.own.incarnation) {
            return Ok(Owner::Ours);
        }
        // This engine holds the port, so nobody else has the address. Not so where the port is bound only later.
        if seen.is_same && (!self.legacy_port || matches!(replaces, Replaces::None)) {
            return Ok(Owner::Ours);
        }
        if matches!(replaces, Replaces::None) {
            return Err(refused(format!(
                "key '{key}' belongs to another engine now, which took the name over; give each engine a name of its \
                 own, and destroy this one"
            )));
        }
        if let Replaces::UnderName(rpc) = replaces {
            // Once more, now that the entry was read: whoever has taken the name over since may have written it.
            self.check_name(rpc).await?;
        }
        let Ok(address) = decode_address(&entry.value) else {
            // A descriptor: the name was claimed before.
            return Ok(Owner::Dead("it is of an earlier engine of this name".into()));
        };
        match self.probe(&address).await? {
            Some(why) => Ok(Owner::Dead(format!("its owner at {address} {why}"))),
            None => Err(refused(format!(
                "the name is in use: key '{key}' leads to {address}, where an engine answers; choose another local \
                 server name, or if that is an engine of another name, remove the key"
            ))),
        }
    }

    /// Why the engine at `address` counts as dead; `None` if it answers. An error if it could not be asked.
    async fn probe(&self, address: &HostPort) -> Result<Option<String>> {
        match timeout(PROBE_LIMIT, self.asker.probe(address)).await {
            Ok(Ok(())) => Ok(None),
            Ok(Err(error)) if OWN_TROUBLE.contains(&error.errno()) => {
                let text = format!("whether the owner at {address} lives cannot be found out: {error}");
                Err(unreachable(text))
            }
            // With the cluster key: an engine answers that has another key.
            Ok(Err(error)) if error.kind() == Class::Rejected => Ok(None),
            Ok(Err(error)) => Ok(Some(format!("does not answer ({error})"))),
            Err(_) => Ok(Some(format!("was silent for {} s", PROBE_LIMIT.as_secs()))),
        }
    }

    /// A descriptor may only be written over somebody else's while the name is this engine's.
    async fn check_name(&self, rpc: Option<&Claim>) -> Result<()> {
        let Some(rpc) = rpc else { return Ok(()) };
        match self.backend.get(rpc.key.clone(), true).await? {
            Some(entry) if !self.is_ours(rpc, &entry).await? => Err(refused(format!(
                "key '{}' belongs to another engine now, which took the name over before this one listened; give each \
                 engine a name of its own",
                rpc.key
            ))),
            _ => Ok(()),
        }
    }

    async fn is_ours(&self, claim: &Claim, entry: &Entry) -> Result<bool> {
        let seen = Seen::of(entry, &claim.value).await?;
        Ok(seen.is_same || seen.incarnation.is_some_and(|incarnation| incarnation == self.own.incarnation))
    }

    fn not_published(&self, error: Error, key: &str, bytes: usize) -> Error {
        error.context(format_args!("write key '{key}' ({bytes} bytes) to {}", self.backend.name()))
    }
}

/// What an entry of the store says.
#[derive(Default)]
struct Seen {
    incarnation: Option<String>,
    /// The same as the value it is compared with. Servers may format JSON anew.
    is_same: bool,
}

impl Seen {
    /// `ERR_MEMORY` if the entry cannot be copied.
    async fn of(entry: &Entry, value: &Arc<[u8]>) -> Result<Self> {
        let (mut theirs, ours) = (Vec::new(), value.clone());
        theirs
            .try_reserve_exact(entry.value.len())
            .map_err(|_| Error::out_of_memory("a value of the store"))?;
        theirs.extend_from_slice(&entry.value);
        let look = move || {
            let parsed = json::parse(&theirs).ok();
            let incarnation =
                parsed.as_ref().and_then(|value| value.get("incarnation")?.as_str().map(String::from));
            let is_same = theirs[..] == ours[..] || parsed.is_some() && parsed == json::parse(&ours).ok();
            Ok(Seen { incarnation, is_same })
        };
        Ok(aside::run(entry.value.len(), look).await.unwrap_or_default())
    }
}
