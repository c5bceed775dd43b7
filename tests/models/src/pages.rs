//! What stands in for memory that two processes share: pages of a model's atomics.

use std::collections::HashMap;
use std::io;
use std::os::fd::RawFd;
use std::sync::atomic::AtomicI32;
use std::sync::{Arc, Mutex, Weak};

use crate::error::Result;
use crate::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Numbers of a page: as many as the models reach. Each is an object that the checker follows.
const NUMBERS: usize = 48;

type Page = [AtomicU64; NUMBERS];

static LAST: AtomicI32 = AtomicI32::new(-1);
static PAGES: Mutex<Option<HashMap<RawFd, Weak<Page>>>> = Mutex::new(None);

/// A page of one side's.
pub struct SharedMemory {
    page: Arc<Page>,
    fd: RawFd,
}

impl SharedMemory {
    pub fn fd(&self) -> RawFd {
        self.fd
    }

    pub fn close(&mut self) {
        self.fd = -1;
    }

    pub fn number(&self, index: usize) -> Option<&AtomicU64> {
        self.page.get(index)
    }

    pub fn can_be_shared(&self) -> bool {
        true
    }
}

/// A page.
pub fn unlisted(_len: u64) -> Result<SharedMemory> {
    let page: Arc<Page> = Arc::new(std::array::from_fn(|_| AtomicU64::new(0)));
    let mut pages = PAGES.lock().unwrap();
    let pages = pages.get_or_insert_default();
    pages.retain(|_, page| page.strong_count() > 0);
    let fd = (0..).find(|fd| !pages.contains_key(fd)).unwrap();
    pages.insert(fd, Arc::downgrade(&page));
    LAST.store(fd, std::sync::atomic::Ordering::Relaxed);
    Ok(SharedMemory { page, fd })
}

/// The descriptor of the page that was made last.
pub fn last_made() -> RawFd {
    LAST.load(std::sync::atomic::Ordering::Relaxed)
}

/// The other side's view of it.
pub struct Mapping(Arc<Page>);

impl Mapping {
    pub fn of_messages(fd: RawFd, _len: u64) -> io::Result<Self> {
        let pages = PAGES.lock().unwrap();
        let page = pages.as_ref().and_then(|pages| pages.get(&fd)?.upgrade());
        page.map(Mapping).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    pub fn number(&self, index: usize) -> u64 {
        self.0.get(index).map_or(0, |number| number.load(Relaxed))
    }
}

/// No model has a socket.
pub fn send_with(_socket: RawFd, _bytes: &[u8], _fd: RawFd) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}
