//! Looks after what is open of a peer: memory that it has freed stays allocated for as long as a descriptor is open here.

use std::sync::{Arc, Weak};
use std::time::Duration;

use super::errors;
use super::link::PosixShmLink;
use super::reached::Reached;
use crate::runtime::blocking;
use crate::runtime::control::Control;

/// How often it is looked. Chosen: a look is a system call per object.
const INTERVAL: Duration = Duration::from_secs(1);

/// Has it looked at on the control plane from now on, until nothing is open, unless that is done already.
pub(super) fn watch(control: &Control, link: &Weak<PosixShmLink>, reached: &Arc<Reached>) {
    if !reached.objects.begin_watch() {
        return;
    }
    let (link, reached) = (link.clone(), Arc::downgrade(reached));
    control.spawn(async move {
        loop {
            tokio::time::sleep(INTERVAL).await;
            let (link, reached) = (link.clone(), reached.clone());
            // Without a thread for it, it is looked the next time.
            if let Ok(false) = blocking::run(move || is_open(&link, &reached)).await {
                return;
            }
        }
    });
}

/// Closes what is of no more use; whether anything is left.
fn is_open(link: &Weak<PosixShmLink>, reached: &Weak<Reached>) -> bool {
    let (Some(link), Some(reached)) = (link.upgrade(), reached.upgrade()) else { return false };
    if !reached.is_alive() {
        link.lose(&reached, &errors::ended(reached.pid(), link.peer()));
        return false;
    }
    reached.objects.tidy()
}
