//! The open segments of an engine, by id and by name.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::RwLock;

use super::freshness;
use super::Segment;
use crate::config::Config;
use crate::engine::known::Known;
use crate::error::{Code, Error, Result};
use crate::metadata::Store;

/// All open segments of an engine.
#[derive(Default)]
pub(crate) struct Segments {
    /// Guards both maps; never held across I/O.
    maps: RwLock<Maps>,
    settings: freshness::Settings,
}

#[derive(Default)]
struct Maps {
    by_id: HashMap<i32, Arc<Segment>>,
    by_name: HashMap<String, i32>,
    last_id: i32,
}

impl Segments {
    /// No segment is open.
    pub(crate) fn new(config: &Config) -> Self {
        Segments { maps: RwLock::default(), settings: freshness::Settings::new(config) }
    }

    /// The segment opened by `name`.
    pub(crate) fn by_name(&self, name: &str) -> Option<Arc<Segment>> {
        let maps = self.maps.read();
        maps.by_name.get(name).and_then(|id| maps.by_id.get(id)).cloned()
    }

    /// The segment with `id`.
    pub(crate) fn by_id(&self, id: i32) -> Option<Arc<Segment>> {
        self.maps.read().by_id.get(&id).cloned()
    }

    /// Enters a segment; if another thread was faster, its id stays.
    pub(crate) fn insert(&self, name: &str, store: &Arc<dyn Store>, known: Known) -> Result<i32> {
        let mut maps = self.maps.write();
        if let Some(id) = maps.by_name.get(name) {
            return Ok(*id);
        }
        let full = || Error::new(Code::Memory, "2^31 segments were opened; destroy and recreate the engine");
        let id = maps.last_id.checked_add(1).ok_or_else(full)?;
        maps.last_id = id;
        let segment = Segment::new(id, name, store, known, &self.settings);
        maps.by_id.insert(id, Arc::new(segment));
        maps.by_name.insert(name.to_string(), id);
        Ok(id)
    }

    /// Forgets a segment; transfers under way go on.
    pub(crate) fn remove(&self, name: &str) {
        let mut maps = self.maps.write();
        if let Some(id) = maps.by_name.remove(name) {
            maps.by_id.remove(&id);
        }
    }

    /// Every open segment.
    pub(crate) fn all(&self) -> Vec<Arc<Segment>> {
        self.maps.read().by_id.values().cloned().collect()
    }

    /// The name under which a segment was opened, for the first one that satisfies `is_wanted`.
    pub(crate) fn opened_as(&self, is_wanted: impl Fn(&Segment) -> bool) -> Option<String> {
        let maps = self.maps.read();
        maps.by_id.values().find(|segment| is_wanted(segment)).map(|segment| segment.opened_as.clone())
    }
}
