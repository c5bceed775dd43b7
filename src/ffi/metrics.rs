//! `transfer_engine_ext.h`, metrics of the process.

use std::ffi::{c_char, c_int};

use super::guard::{guard, whole_text};
use crate::engine::handles;
use crate::engine::metrics::Form;
use crate::error::Error;

/// What Prometheus reads, text format 0.0.4.
pub const MTE_METRICS_TEXT: c_int = 0;
/// One JSON object with a member for each series.
pub const MTE_METRICS_JSON: c_int = 1;
/// One line for people.
pub const MTE_METRICS_SUMMARY: c_int = 2;

/// What all engines of this process have done and have to do, in the form MTE_METRICS_*. Counts as Prometheus wants it: no
/// counter falls while the process lives, but for those of a transport, which go with their engine. buf and len as for mte_local_topology; the text may be longer at the next call. Asks
/// nobody, waits for no transfer. 0; -1 for another form, or NULL.
#[no_mangle]
pub unsafe extern "C" fn mte_metrics(form: c_int, buf: *mut c_char, len: *mut usize) -> c_int {
    guard(|| {
        let form = match form {
            MTE_METRICS_TEXT => Form::Text,
            MTE_METRICS_JSON => Form::Json,
            MTE_METRICS_SUMMARY => Form::Summary,
            _ => {
                let text = format!("form {form} is none of MTE_METRICS_TEXT, _JSON and _SUMMARY (0 to 2)");
                return Err(Error::invalid(text));
            }
        };
        // SAFETY: `*len` bytes by the API's contract.
        unsafe { whole_text(&handles::metrics(form), buf, len) }
    })
}
