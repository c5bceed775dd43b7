//! A table of values by the keys that stand in the ids of work requests. A key is the place in the table and the
//! generation of the place, so that completions of something that is gone find nothing.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::error::{Code, Error, Result};

/// Bits of a key that say the place; the other 12 are the generation. Chosen: room for eight times as many queue
/// pairs as a NIC may have by default.
const PLACE_BITS: u32 = 20;

/// Values by key.
pub(super) struct Places<T> {
    /// Held briefly; no value is dropped under it.
    table: Mutex<Table<T>>,
}

struct Table<T> {
    places: Vec<Place<T>>,
    vacant: Vec<u32>,
}

struct Place<T> {
    generation: u32,
    value: Option<Arc<T>>,
}

impl<T> Places<T> {
    /// An empty table.
    pub(super) fn new() -> Self {
        Places { table: Mutex::new(Table { places: Vec::new(), vacant: Vec::new() }) }
    }

    /// Enters a new value, which is told its key.
    pub(super) fn attach(&self, make: impl FnOnce(u32) -> T) -> Result<Arc<T>> {
        let mut table = self.table.lock();
        let place = match table.vacant.pop() {
            Some(place) => place,
            None if table.places.len() < 1 << PLACE_BITS => {
                table.places.push(Place { generation: 0, value: None });
                table.places.len() as u32 - 1
            }
            None => {
                let text = "the table of queue pairs is full; lower MC_MAX_EP_PER_CTX";
                return Err(Error::new(Code::Endpoint, text));
            }
        };
        let entry = &mut table.places[place as usize];
        entry.generation = entry.generation.wrapping_add(1);
        let value = Arc::new(make(entry.key(place)));
        entry.value = Some(value.clone());
        Ok(value)
    }

    /// Takes `value` out; its key `key` leads nowhere from now on.
    pub(super) fn detach(&self, key: u32, value: &T) {
        let place = place_of(key);
        let mut table = self.table.lock();
        let taken = table.places.get_mut(place as usize).and_then(|entry| match &entry.value {
            // Keys come round again after 4096 generations.
            Some(held) if std::ptr::eq(&**held, value) => entry.value.take(),
            _ => None,
        });
        if taken.is_some() {
            table.vacant.push(place);
        }
        drop(table);
        drop(taken);
    }

    /// The value with a key.
    pub(super) fn find(&self, key: u32) -> Option<Arc<T>> {
        let table = self.table.lock();
        let entry = table.places.get(place_of(key) as usize)?;
        entry.value.clone().filter(|_| entry.key(place_of(key)) == key)
    }

    /// Every value.
    pub(super) fn all(&self) -> Vec<Arc<T>> {
        self.table.lock().places.iter().filter_map(|place| place.value.clone()).collect()
    }

    /// The values in up to `count` places from `from` on, and where to go on: at the beginning, after the last.
    pub(super) fn some(&self, from: usize, count: usize) -> (Vec<Arc<T>>, usize) {
        let table = self.table.lock();
        let end = from.saturating_add(count).min(table.places.len());
        let part = table.places.get(from..end).unwrap_or_default();
        let found = part.iter().filter_map(|place| place.value.clone()).collect();
        (found, if end < table.places.len() { end } else { 0 })
    }
}

impl<T> Place<T> {
    fn key(&self, place: u32) -> u32 {
        self.generation << PLACE_BITS | place
    }
}

fn place_of(key: u32) -> u32 {
    key & ((1 << PLACE_BITS) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_places_are_seen_in_turn() {
        let places = Places::new();
        let values: Vec<_> = (0..5).map(|number| places.attach(|_| number).unwrap()).collect();
        assert_eq!(places.some(0, 3), (values[..3].to_vec(), 3));
        assert_eq!(places.some(3, 3), (values[3..].to_vec(), 0));
        assert_eq!(places.some(7, 3), (vec![], 0));
        places.detach(1 << PLACE_BITS | 1, &values[1]);
        assert_eq!(places.some(0, 2), (vec![values[0].clone()], 2));
    }

    #[test]
    fn a_key_of_what_is_gone_finds_nothing_when_its_place_is_taken_again() {
        let places = Places::new();
        let (first, second) = (places.attach(|key| key).unwrap(), places.attach(|key| key).unwrap());
        assert_eq!(places.find(*first), Some(first.clone()));
        places.detach(*first, &first);
        places.detach(*first, &first);
        assert_eq!((places.find(*first), places.all()), (None, vec![second.clone()]));
        let third = places.attach(|key| key).unwrap();
        assert_eq!(place_of(*third), place_of(*first));
        assert_eq!((places.find(*first), places.find(*third)), (None, Some(third.clone())));
        // A stale detach does not touch the new owner of the place.
        places.detach(*first, &first);
        assert_eq!(places.find(*third), Some(third));
    }
}
