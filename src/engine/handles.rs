//! Engine handles: tokens into a process-wide table, never pointers that are followed.
//! Heap addresses are reused; tokens are not.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};

use super::{glance, metrics, Engine, Inside};
use crate::error::{Class, Error, Result};
use crate::runtime::fork;
use crate::runtime::per_process::PerProcess;
use crate::runtime::slots::{Slots, KEY_BITS};
use crate::transport::slice::Status;

static ENGINES: PerProcess<Slots<Engine>> = PerProcess::new(Slots::default);

/// Guards the labels: no two engines take one.
static LABELS: PerProcess<Mutex<()>> = PerProcess::new(Mutex::default);

/// Read while somebody looks at all engines. Whoever takes one out waits for that, so that a reader of metrics never has the
/// last reference to it: what an engine has is gone when its destruction returns.
static LOOKS: PerProcess<RwLock<()>> = PerProcess::new(RwLock::default);

/// How long whoever takes an engine out waits for looks. Chosen: one takes milliseconds, with a million tasks.
const LOOK_LIMIT: Duration = Duration::from_secs(1);

/// A token for `engine`, never 0.
pub fn insert(engine: Arc<Engine>) -> Result<u64> {
    let key = {
        let _turn = LABELS.get().lock();
        look(&mut |others| engine.distinguish(others));
        ENGINES.get().insert(engine.clone())?
    };
    if let Some(member) = metrics::endpoint::join(&engine.config, look) {
        engine.attach(Box::new(member));
    }
    Ok(epoch_bits() | key)
}

/// Enters the engine behind `token`; -1 for anything else.
#[inline]
pub fn enter(token: u64) -> Result<Inside> {
    let engine = ENGINES.get().get(key(token)?).ok_or_else(|| unknown(token))?;
    engine.enter()
}

/// `STATUS_*` and bytes done of a task of the engine behind `token`; -1 if there is none. Moves data along while the task is not
/// terminal, and may send the batch's notification.
pub fn task_status(token: u64, batch_id: u64, task: usize) -> Result<(i32, u64)> {
    let engine = enter(token)?;
    let batch = engine.batch(batch_id)?;
    let found = engine.status_in(&batch, task)?;
    if found.0 == Status::Completed as i32 && !batch.is_single() {
        // It may have been freed meanwhile, but then it was there when it was asked.
        let _ =
            batch.with_work(task, |first, work, _| glance::remember(token, batch_id, &batch, first, work));
    }
    Ok(found)
}

/// Takes the engine out; later uses of the token find nothing.
pub fn remove(token: u64) -> Result<Arc<Engine>> {
    let engine = ENGINES.get().remove(key(token)?).ok_or_else(|| unknown(token))?;
    drop(LOOKS.get().try_write_for(LOOK_LIMIT));
    Ok(engine)
}

/// Metrics of this process.
pub fn metrics(form: metrics::Form) -> String {
    let mut text = String::new();
    look(&mut |engines| text = metrics::gather(engines, form));
    text
}

/// Calls `see` with the engines of this process, once. They cannot be taken out meanwhile, so it must not wait.
fn look(see: &mut dyn FnMut(&[Arc<Engine>])) {
    let _look = LOOKS.get().read();
    let all = Mutex::new(Vec::new());
    ENGINES.get().for_each(|engine| all.lock().push(engine.clone()));
    see(&all.into_inner());
}

/// Destroys every engine that asked to be released at shutdown.
pub fn destroy_marked() {
    ENGINES.get().for_each(|engine| {
        if engine.is_released_at_shutdown() {
            engine.destroy();
        }
    });
}

/// The table key; an error, before any lock is touched, in a forked child.
#[inline]
fn key(token: u64) -> Result<u64> {
    if token == 0 {
        return Err(Error::invalid("engine handle is NULL"));
    }
    let key = token & ((1 << KEY_BITS) - 1);
    if token & !((1 << KEY_BITS) - 1) == epoch_bits() {
        return Ok(key);
    }
    if token >> KEY_BITS < epoch_bits() >> KEY_BITS {
        let text = "this engine belongs to the parent process: create one after fork";
        return Err(Error::invalid(text).permanent(Class::Unsupported));
    }
    Err(unknown(token))
}

/// The fork epoch in the bits above the key.
#[inline]
fn epoch_bits() -> u64 {
    u64::from(fork::epoch() as u16) << KEY_BITS
}

fn unknown(token: u64) -> Error {
    Error::invalid(format!("engine handle {token:#x} is unknown: destroyed already, or never created"))
}

#[cfg(test)]
mod tests;
