//! The text of a descriptor as it goes out: made once, shared by every reply that carries it.

use std::sync::Arc;

use serde_json::Value;
use tokio::sync::watch;

use crate::error::Result;
use crate::json;

/// A JSON text and a newline. Immutable.
pub struct Document {
    text: Vec<u8>,
    withdrawn: watch::Sender<bool>,
}

impl Document {
    /// The text of `value`. `ERR_MEMORY` if it does not fit.
    pub fn new(value: &Value) -> Result<Arc<Self>> {
        let text = json::line(value)?;
        Ok(Arc::new(Document { text, withdrawn: watch::Sender::new(false) }))
    }

    /// The bytes that follow a frame's type.
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// Ends replies that still carry it, because its memory is wanted back.
    pub fn withdraw(&self) {
        self.withdrawn.send_replace(true);
    }

    /// Whether it is withdrawn.
    #[cfg(test)]
    pub(crate) fn is_withdrawn(&self) -> bool {
        *self.withdrawn.borrow()
    }

    /// Returns once it is withdrawn.
    pub(super) async fn withdrawn(&self) {
        // The sender lives as long as `self`.
        let _ = self.withdrawn.subscribe().wait_for(|withdrawn| *withdrawn).await;
    }
}
