//! Models of the table of handles.

use std::sync::Arc;

use loom::thread;

use crate::check::each_execution;
use crate::runtime::slots::Slots;

/// A key that was removed finds nothing, even when its slot serves another one, and one of two removers gets the value.
pub fn p08_a_removed_key_finds_nothing() {
    each_execution(3, || {
        let slots = Arc::new(Slots::default());
        let value = Arc::new(1);
        let key = slots.insert(value.clone()).unwrap();
        let theirs = slots.clone();
        let other = thread::spawn(move || theirs.remove(key).is_some());
        let ours = slots.remove(key).is_some();
        let next = slots.insert(Arc::new(2)).unwrap();
        assert!(next != key && slots.get(key).is_none_or(|value| *value == 1));
        assert_ne!(ours, other.join().unwrap());
        assert_eq!(Arc::strong_count(&value), 1, "the table keeps it");
        assert_eq!((slots.get(key), slots.get(next).as_deref()), (None, Some(&2)));
    });
}
