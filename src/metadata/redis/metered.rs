//! The connection to Redis. It counts what the server sends, because the library that reads answers takes them whole,
//! whatever their length, and remembers what tells why a connection failed.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{ready, Context, Poll};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::metadata::tls;

/// Bytes that may arrive beside the answers to calls. Chosen: far more than the answers to the login take.
const SPARE: usize = 64 << 10;

/// How much the server may send on one connection, by the calls that wait for an answer.
pub(super) struct Allowance {
    /// Bytes of one answer.
    each: usize,
    /// Guards the count.
    state: Mutex<State>,
}

struct State {
    calls: usize,
    left: usize,
    is_used_up: bool,
    /// What the server sent first.
    first: Option<u8>,
    /// What TLS failed of.
    tls: Option<String>,
}

/// One call that waits for its answer.
pub(super) struct Call(Arc<Allowance>);

impl Allowance {
    /// Answers of at most `each` bytes.
    pub(super) fn new(each: usize) -> Arc<Self> {
        let state = State { calls: 0, left: SPARE, is_used_up: false, first: None, tls: None };
        Arc::new(Allowance { each, state: Mutex::new(state) })
    }

    /// Lets one more answer come.
    pub(super) fn call(self: &Arc<Self>) -> Call {
        let mut state = self.state.lock();
        state.calls += 1;
        state.left = state.left.saturating_add(self.each);
        Call(self.clone())
    }

    /// Whether the server sent more than it may, which has ended the connection.
    pub(super) fn is_used_up(&self) -> bool {
        self.state.lock().is_used_up
    }

    /// The first byte that the server sent.
    pub(super) fn first(&self) -> Option<u8> {
        self.state.lock().first
    }

    /// What TLS failed of, once the connection was made.
    pub(super) fn tls_failure(&self) -> Option<String> {
        self.state.lock().tls.clone()
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.calls -= 1;
        // What this answer did not need is nobody's, and the spare part is there again.
        let most = self.0.each.saturating_mul(state.calls).saturating_add(SPARE);
        state.left = if state.calls == 0 { SPARE } else { state.left.min(most) };
    }
}

/// What is read and written: a socket, or TLS over one.
pub(super) trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// The connection.
pub(super) struct Metered {
    wire: Box<dyn Wire>,
    allowance: Arc<Allowance>,
}

impl Metered {
    /// `wire`, from which no more than the allowance is read.
    pub(super) fn new(wire: Box<dyn Wire>, allowance: Arc<Allowance>) -> Self {
        Metered { wire, allowance }
    }

    fn note<T>(&self, done: io::Result<T>) -> io::Result<T> {
        done.inspect_err(|error| {
            if let Some(failure) = tls::failure(error) {
                self.allowance.state.lock().tls.get_or_insert_with(|| failure.to_string());
            }
        })
    }
}

impl AsyncRead for Metered {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = ready!(Pin::new(&mut self.wire).poll_read(context, buffer));
        self.note(read)?;
        let mut state = self.allowance.state.lock();
        let read = &buffer.filled()[before..];
        state.first = state.first.or(read.first().copied());
        match state.left.checked_sub(read.len()) {
            Some(left) => state.left = left,
            None => {
                state.is_used_up = true;
                return Poll::Ready(Err(io::Error::other("the answer is too long")));
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// Does not offer vectored writes: they raise SIGPIPE.
impl AsyncWrite for Metered {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.wire).poll_write(context, bytes));
        Poll::Ready(self.note(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = ready!(Pin::new(&mut self.wire).poll_flush(context));
        Poll::Ready(self.note(flushed))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_uses_its_own_part_only() {
        let allowance = Allowance::new(1000);
        let left = || allowance.state.lock().left;
        let (one, two) = (allowance.call(), allowance.call());
        assert_eq!(left(), SPARE + 2000);
        allowance.state.lock().left -= 900;
        drop(one);
        assert_eq!(left(), SPARE + 1000);
        allowance.state.lock().left -= SPARE + 500;
        drop(two);
        assert_eq!(left(), SPARE);
    }
}
