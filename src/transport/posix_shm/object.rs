//! An object of the peer: a file below `/dev/shm`, opened by the name that the descriptor tells, and proven to be what the peer
//! has mapped as its buffer.

use std::fs::{File, Metadata};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::sync::Arc;

use parking_lot::Mutex;

use super::kernel;
use super::offer::ObjectName;
use super::process::{Doubt, Process};
use crate::runtime::descriptors::is_scarce;
use crate::runtime::tracked::Tracked;
use crate::transport::offer::PeerBuffer;

/// Where the objects are, from shm_overview(7).
const FOLDER: &str = "/dev/shm";
/// Objects that are kept open per peer. Chosen: a descriptor each, and to open one again takes some 0.1 ms.
const MOST_OPEN: usize = 64;

/// Why an object is not used.
pub(super) enum Refusal {
    /// The peer has freed it, or made it shorter: its descriptor is old.
    Gone(&'static str),
    /// It is not proven to be the peer's memory.
    Doubtful(Doubt),
    /// This process lacks something.
    Resource(io::Error),
}

/// An object that is open.
pub(super) struct Object {
    /// Its bytes.
    pub file: Tracked<File>,
    name: ObjectName,
    addr: u64,
    len: u64,
}

impl Object {
    fn open(buffer: &PeerBuffer, name: &ObjectName, process: &Process) -> Result<Self, Refusal> {
        let text = &name.text;
        // A name that somebody has made a pipe or a link of neither blocks nor leads elsewhere.
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
        let open =
            || File::options().read(true).write(true).custom_flags(flags).open(format!("{FOLDER}{text}"));
        let file = Tracked::open(open).map_err(|e| match e.raw_os_error() {
            Some(libc::ENOENT) => Refusal::Gone("the object has been freed"),
            Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM) => Refusal::Resource(e),
            Some(libc::ELOOP) => Refusal::Doubtful(format!("{text} is a symbolic link")),
            _ => Refusal::Doubtful(format!("{text} cannot be opened: {e}")),
        })?;
        let unknown = |e: io::Error| Refusal::Doubtful(format!("{text} cannot be looked at: {e}"));
        let meta = file.metadata().map_err(unknown)?;
        if !meta.is_file() || !kernel::is_in_memory(&file).map_err(unknown)? {
            return Err(Refusal::Doubtful(format!("{text} is not a file in memory")));
        }
        if meta.uid() != kernel::own_user() {
            return Err(Refusal::Doubtful(format!("{text} is of user {}", meta.uid())));
        }
        has_room(&meta, buffer.len)?;
        let of_file = (meta.dev(), meta.ino());
        if !process.has_mapped(buffer.addr, buffer.len, of_file).map_err(unknown)? {
            let (pid, addr) = (process.pid, buffer.addr);
            let text =
                format!("process {pid} does not have {text} mapped at {addr:#x}, as its descriptor says");
            return Err(Refusal::Doubtful(text));
        }
        Ok(Object { file, name: name.clone(), addr: buffer.addr, len: buffer.len })
    }

    fn is(&self, buffer: &PeerBuffer, name: &ObjectName) -> bool {
        self.name == *name && self.addr == buffer.addr && self.len == buffer.len
    }

    /// Whether the peer has neither freed it nor cut it off before `end`.
    pub(super) fn check(&self, end: u64) -> Result<(), Refusal> {
        let meta = self.file.metadata().map_err(Refusal::Resource)?;
        has_room(&meta, end)
    }
}

fn has_room(meta: &Metadata, len: u64) -> Result<(), Refusal> {
    if meta.nlink() == 0 {
        return Err(Refusal::Gone("the object has been freed"));
    }
    match meta.size() < len {
        true => Err(Refusal::Gone("the object is shorter than its buffer")),
        false => Ok(()),
    }
}

/// The objects of one process that are open. Any thread.
pub(super) struct Objects {
    /// Guards the list.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The one that was opened first leaves first.
    open: Vec<Arc<Object>>,
    /// Somebody looks from time to time whether the peer has freed them.
    is_watched: bool,
}

impl Objects {
    /// None.
    pub(super) fn new() -> Self {
        Objects { state: Mutex::default() }
    }

    /// The object of a buffer, opened if it was not, which may take milliseconds.
    pub(super) fn get(
        &self,
        buffer: &PeerBuffer,
        name: &ObjectName,
        process: &Process,
    ) -> Result<Arc<Object>, Refusal> {
        let known = self.state.lock().find(buffer, name);
        if let Some(object) = known {
            return Ok(object);
        }
        let object = Arc::new(Object::open(buffer, name, process)?);
        // The last descriptors are the host program's: this one goes after its use.
        if is_scarce(object.file.as_raw_fd()) {
            return Ok(object);
        }
        let mut left = None;
        let mut state = self.state.lock();
        // Another thread may have opened it meanwhile.
        if let Some(known) = state.find(buffer, name) {
            drop(state);
            return Ok(known);
        }
        if state.open.len() >= MOST_OPEN {
            left = Some(state.open.remove(0));
        }
        state.open.push(object.clone());
        drop(state);
        drop(left);
        Ok(object)
    }

    /// Whether any is open that nobody watches. The caller does from now on, until [`Objects::tidy`] finds none open.
    pub(super) fn begin_watch(&self) -> bool {
        let mut state = self.state.lock();
        let begins = !state.is_watched && !state.open.is_empty();
        state.is_watched |= begins;
        begins
    }

    /// Closes what the peer has freed, which its memory is kept by; whether any is left to be watched.
    pub(super) fn tidy(&self) -> bool {
        let open = self.state.lock().open.clone();
        // Without the lock: to close the last descriptor of an object frees its memory.
        open.iter().filter(|object| object.check(0).is_err()).for_each(|object| self.forget(object));
        drop(open);
        let mut state = self.state.lock();
        state.is_watched = !state.open.is_empty();
        state.is_watched
    }

    /// The object is of no more use.
    pub(super) fn forget(&self, object: &Arc<Object>) {
        let mut state = self.state.lock();
        let place = state.open.iter().position(|one| Arc::ptr_eq(one, object));
        let left = place.map(|place| state.open.swap_remove(place));
        drop(state);
        drop(left);
    }
}

impl State {
    fn find(&self, buffer: &PeerBuffer, name: &ObjectName) -> Option<Arc<Object>> {
        self.open.iter().find(|object| object.is(buffer, name)).cloned()
    }
}
