//! Registration over several transports, with fakes.

use std::sync::Mutex;

use super::*;
use crate::error::{Code, Error};

/// Notes what is asked of it, and can refuse.
#[derive(Default)]
struct Fake {
    name: &'static str,
    refuses: bool,
    /// Called while regions are prepared.
    meanwhile: Option<Box<dyn Fn() + Send + Sync>>,
    notes: Arc<Mutex<Vec<String>>>,
}

impl Transport for Fake {
    fn name(&self) -> &'static str {
        self.name
    }

    fn register(&self, regions: &[Arc<Region>]) -> Result<()> {
        if let Some(meanwhile) = &self.meanwhile {
            meanwhile();
        }
        if self.refuses {
            return Err(Error::new(Code::Context, "no more keys"));
        }
        self.note(&format!("takes {}", regions.len()));
        Ok(())
    }

    fn unregister(&self, region: &Arc<Region>) {
        self.note(&format!("drops {}", region.addr));
    }

    fn abort(&self, region: &Arc<Region>) {
        self.note(&format!("aborts {}", region.addr));
    }

    fn list_buffers(&self, _: &mut crate::segment_desc::SegmentDesc) -> Result<bool> {
        Ok(false)
    }

    fn link(&self, _: Arc<dyn crate::transport::host::Route>) -> Arc<dyn crate::transport::Link> {
        unreachable!("nothing is submitted here")
    }

    fn stop(&self) {}

    fn stats(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }
}

impl Fake {
    fn note(&self, what: &str) {
        self.notes.lock().unwrap().push(format!("{} {what}", self.name));
    }
}

fn reserve_and_prepare(registry: &Registry, transports: &[Arc<dyn Transport>]) -> Result<()> {
    prepare(registry, transports, &registry.reserve(&ranges(), "cpu:0", true)?.added)
}

fn ranges() -> [Range; 2] {
    [Range { addr: 1000, len: 100 }, Range { addr: 5000, len: 100 }]
}

#[test]
fn p11_what_one_transport_cannot_register_is_registered_nowhere() {
    let registry = Registry::default();
    let notes = Arc::default();
    let fake = |name, refuses| -> Arc<dyn Transport> {
        Arc::new(Fake { name, refuses, notes: Arc::clone(&notes), ..Fake::default() })
    };
    let transports = [fake("a", false), fake("b", false), fake("c", true), fake("d", false)];
    let error = reserve_and_prepare(&registry, &transports).err().unwrap();
    assert_eq!(error.code(), Code::Context);
    assert!(error.text().starts_with("register with c: "), "{error}");
    let expected = ["a takes 2", "b takes 2", "b drops 1000", "b drops 5000", "a drops 1000", "a drops 5000"];
    assert_eq!(*notes.lock().unwrap(), expected);
    assert!(registry.published().unwrap().is_empty());
    reserve_and_prepare(&registry, &transports[..2]).unwrap();
    assert_eq!(registry.published().unwrap().len(), 2);
}

#[test]
fn nobody_uses_sees_or_takes_a_region_while_it_is_prepared() {
    let registry = Arc::new(Registry::default());
    let (seen, looked) = (Arc::new(Mutex::new(Vec::new())), registry.clone());
    let found = seen.clone();
    // On another thread: the registry's lock must not be held meanwhile.
    let look = move || {
        let registry = looked.clone();
        let look = move || {
            let usable = registry.view().use_at(1000, 1).is_some()
                || registry.use_for_peer(1000, 1, PeerAccess::BOTH).is_some();
            let published = !registry.published().unwrap().is_empty() || registry.is_published(1000);
            let range = Range { addr: 1050, len: 1 };
            let taken = registry.reserve(&[range], "*", true).err().map(|e| e.code());
            (usable, published, taken, registry.revoke(1000).err().map(|e| e.code()))
        };
        found.lock().unwrap().push(std::thread::spawn(look).join().unwrap());
    };
    let fake = Fake { name: "a", meanwhile: Some(Box::new(look)), ..Fake::default() };
    reserve_and_prepare(&registry, &[Arc::new(fake)]).unwrap();
    let refused = (false, false, Some(Code::AddressOverlapped), Some(Code::AddressNotRegistered));
    assert_eq!(*seen.lock().unwrap(), [refused]);
    assert!(registry.use_for_peer(1000, 1, PeerAccess::BOTH).is_some());
}

#[test]
fn a_transport_gives_a_region_up_after_its_last_use() {
    let registry = Arc::new(Registry::default());
    let notes: Arc<Mutex<Vec<String>>> = Arc::default();
    let fake: Arc<dyn Transport> = Arc::new(Fake { name: "a", notes: Arc::clone(&notes), ..Fake::default() });
    let transports = [fake];
    reserve_and_prepare(&registry, &transports).unwrap();
    let held = registry.use_for_peer(1000, 1, PeerAccess::BOTH).unwrap();
    let region = registry.revoke(1000).unwrap().unwrap();
    let user = {
        let (notes, region) = (Arc::clone(&notes), region.clone());
        std::thread::spawn(move || {
            while !notes.lock().unwrap().contains(&"a aborts 1000".to_string()) {
                std::thread::yield_now();
            }
            assert!(!region.wait_idle(Duration::ZERO));
            notes.lock().unwrap().push("last use ends".into());
            drop(held);
        })
    };
    release(&registry, &transports, &region);
    user.join().unwrap();
    let notes = notes.lock().unwrap();
    let end: Vec<&str> =
        notes.iter().map(String::as_str).filter(|note| !note.starts_with("a aborts")).collect();
    assert_eq!(end, ["a takes 2", "last use ends", "a drops 1000"]);
    assert!(registry.reserve(&[Range { addr: 1000, len: 1 }], "*", true).is_ok());
}
