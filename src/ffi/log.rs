//! `transfer_engine_ext.h`, the host's logger.

use std::ffi::{c_char, c_int, c_void, CString};

use tracing::Level;

use super::guard::guard;
use crate::observe::sink::{self, Logger};

/// What is of use only to whoever looks for a fault.
pub const MTE_LOG_TRACE: c_int = 0;
/// What an engine lives through: it is created, destroyed, reached.
pub const MTE_LOG_INFO: c_int = 1;
/// Fall-backs, and settings that are ignored.
pub const MTE_LOG_WARNING: c_int = 2;
/// Failures.
pub const MTE_LOG_ERROR: c_int = 3;

/// What C passes as `user`: a pointer that only the callback looks into.
struct User(*mut c_void);

// SAFETY: it is handed back as it came, and the API's contract has the callback called on any thread.
unsafe impl Send for User {}
// SAFETY: as above.
unsafe impl Sync for User {}

impl User {
    fn pointer(&self) -> *mut c_void {
        self.0
    }
}

/// Gives the log lines of this process to callback instead of standard error or MC_LOG_DIR, with their level (MTE_LOG_*) and a text
/// that is valid until it returns; user comes back as it is. NULL: takes that back. Those that
/// MC_LOG_LEVEL admits when the first engine is created. Called on any thread of the library or the program, by several at once;
/// it must return soon, must not throw, and must not call this library, which may hold locks. When this returns, the callback
/// before is not called any more: it waits for calls that run, so no lock may be held that the callback takes. A child of fork has none. 0; -1 from inside of a callback.
#[no_mangle]
pub unsafe extern "C" fn mte_set_log_callback(
    callback: Option<extern "C" fn(level: c_int, text: *const c_char, user: *mut c_void)>,
    user: *mut c_void,
) -> c_int {
    guard(|| {
        let user = User(user);
        let logger = callback.map(|callback| -> Logger {
            Box::new(move |level, text| {
                let Ok(text) = CString::new(text.replace('\0', " ")) else { return };
                callback(number_of(level), text.as_ptr(), user.pointer());
            })
        });
        sink::set(logger)?;
        Ok(0)
    })
}

fn number_of(level: Level) -> c_int {
    match level {
        Level::ERROR => MTE_LOG_ERROR,
        Level::WARN => MTE_LOG_WARNING,
        Level::INFO => MTE_LOG_INFO,
        _ => MTE_LOG_TRACE,
    }
}
