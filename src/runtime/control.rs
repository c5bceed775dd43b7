//! The control plane: one thread (`mte-ctl`) with a tokio event loop that runs the handshake server and clients, the
//! store, and the set-up of TCP's lanes and RDMA's connections. Callers hand it a future and sleep on a channel; they
//! never run a tokio runtime themselves, because they may live inside one.

use std::future::Future;
use std::pin::Pin;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::{blocking, thread};
use crate::error::{Class, Code, Error, Result};

/// How long a stopping engine waits for its blocking threads. Chosen: the three limits of `Engine::destroy`, of which
/// this is one, add up to two seconds.
const LINGER: Duration = Duration::from_millis(300);

/// Most threads of tokio's own for calls that block. Only crates of stores use them, to look names up. Chosen: some may
/// hang, and there are few stores.
const TOKIO_THREADS: usize = 4;

/// Handle to the thread; dropping it stops the thread.
pub struct Control {
    handle: Handle,
    stop: watch::Sender<bool>,
    /// Guards the join handle: the first `stop` takes it.
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Control {
    /// Starts the thread; `ERR_MEMORY` if there is no room for one.
    pub fn start() -> Result<Self> {
        let (stop, mut stopped) = watch::channel(false);
        let (ready, started) = mpsc::sync_channel(1);
        let body = move || {
            let built = tokio::runtime::Builder::new_current_thread()
                .enable_io()
                .enable_time()
                .thread_name("mte-dns")
                .thread_keep_alive(blocking::FOREVER)
                .max_blocking_threads(TOKIO_THREADS)
                .build();
            let runtime = match built {
                Ok(runtime) => runtime,
                Err(e) => return drop(ready.send(Err(e))),
            };
            let _ = ready.send(Ok(runtime.handle().clone()));
            let _ = runtime.block_on(stopped.wait_for(|stop| *stop));
            blocking::stop(LINGER);
            runtime.shutdown_timeout(LINGER);
        };
        let thread = thread::spawn("mte-ctl", body, || ())?;
        let handle = started
            .recv()
            .map_err(|_| broken())?
            .map_err(|e| Error::io(Code::Memory, "cannot set up the control plane (check ulimit -n)", &e))?;
        Ok(Control { handle, stop, thread: Mutex::new(Some(thread)) })
    }

    /// The event loop that the caller runs in, in the place of a thread.
    #[cfg(test)]
    pub(crate) fn of_this_loop() -> Self {
        Control { handle: Handle::current(), stop: watch::channel(false).0, thread: Mutex::new(None) }
    }

    /// Runs `future` on the control thread and sleeps until it is done. If the engine is
    /// destroyed meanwhile: an error of class CANCELED; if it panics: of class INTERNAL.
    pub fn block<T: Send + 'static>(
        &self,
        future: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let (done, result) = mpsc::sync_channel(1);
        self.spawn(async move {
            let _ = done.send(future.await);
        });
        result.recv().unwrap_or_else(|_| Err(if *self.stop.borrow() { broken() } else { failed() }))
    }

    /// Runs `future` on the control thread; it is dropped when the engine stops.
    pub fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) {
        let mut stopped = self.stop.subscribe();
        // Boxed, because tokio's part of a task is compiled for each type of future: 5 KB of code per caller.
        let future: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(future);
        self.handle.spawn(async move {
            tokio::select! {
                biased;
                _ = stopped.wait_for(|stop| *stop) => {}
                () = future => {}
            }
        });
    }

    /// Calls `f` inside the runtime: only there can a std socket be turned into a tokio one.
    pub fn enter<T>(&self, f: impl FnOnce() -> T) -> T {
        let _guard = self.handle.enter();
        f()
    }

    /// Ends all futures and joins the thread.
    pub fn stop(&self) {
        let _ = self.stop.send(true);
        if let Some(thread) = self.thread.lock().take() {
            if thread.thread().id() != std::thread::current().id() {
                let _ = thread.join();
            }
        }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.stop();
    }
}

fn broken() -> Error {
    Error::new(Code::Socket, "the engine is being destroyed").permanent(Class::Canceled)
}

fn failed() -> Error {
    let text = "a task of the control plane failed inside the library; report the log";
    Error::invalid(text).permanent(Class::Internal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocked_calls_end_when_the_control_plane_stops() {
        let control = std::sync::Arc::new(Control::start().unwrap());
        assert_eq!(control.block(async { Ok(7) }).unwrap(), 7);
        let waiting = {
            let control = control.clone();
            std::thread::spawn(move || control.block(std::future::pending::<Result<()>>()))
        };
        let broken = control.block(async { panic!("expected by a test") });
        assert_eq!(Result::<()>::unwrap_err(broken).kind(), Class::Internal);
        control.stop();
        assert_eq!(waiting.join().unwrap().unwrap_err().kind(), Class::Canceled);
        assert_eq!(control.block(async { Ok(()) }).unwrap_err().kind(), Class::Canceled);
    }

    #[test]
    fn works_from_inside_a_hosts_own_runtime() {
        let host = tokio::runtime::Builder::new_current_thread().build().unwrap();
        host.block_on(async {
            let control = Control::start().unwrap();
            assert_eq!(control.block(async { Ok(1) }).unwrap(), 1);
        });
    }
}
