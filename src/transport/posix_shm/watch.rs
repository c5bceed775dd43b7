//! Looks after what is open of a peer: memory that it has freed stays allocated for as long as a descriptor is open here.

use std::sync::{Arc, Weak};
use std::time::Duration;

use super::errors;
use super::reached::Reached;
use crate::error::Error;
use crate::runtime::blocking;
use crate::runtime::control::Control;

/// How often it is looked. Chosen: a look is a system call per object.
const INTERVAL: Duration = Duration::from_secs(1);

/// Has it looked at on the control plane from now on, until nothing is open, unless that is done already. `lose` hears that the
/// process has ended.
pub(super) fn watch<F>(control: &Control, reached: &Arc<Reached>, peer: &str, lose: F)
where
    F: Fn(&Arc<Reached>, &Error) + Send + Sync + 'static,
{
    if !reached.objects.begin_watch() {
        return;
    }
    let (reached, lose, ended) =
        (Arc::downgrade(reached), Arc::new(lose), errors::ended(reached.pid(), peer));
    control.spawn(async move {
        loop {
            tokio::time::sleep(INTERVAL).await;
            let (reached, lose, ended) = (reached.clone(), lose.clone(), ended.clone());
            // Without a thread for it, it is looked the next time.
            if let Ok(false) = blocking::run(move || is_open(&reached, |reached| lose(reached, &ended))).await
            {
                return;
            }
        }
    });
}

/// Closes what is of no more use; whether anything is left.
fn is_open(reached: &Weak<Reached>, lose: impl Fn(&Arc<Reached>)) -> bool {
    let Some(reached) = reached.upgrade() else { return false };
    if !reached.is_alive() {
        lose(&reached);
        return false;
    }
    reached.objects.tidy()
}
