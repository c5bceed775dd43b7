use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::mpsc;

use super::*;

/// Whoever reads metrics never has the last reference to an engine that was destroyed meanwhile.
#[test]
fn p09_an_engine_is_taken_out_once_nobody_looks_at_it() {
    let token = insert(Engine::create("P2PHANDSHAKE", "127.0.0.1", false).unwrap()).unwrap();
    let (looks, looking) = mpsc::channel();
    let (took, taken) = mpsc::channel::<()>();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let over = &over;
        scope.spawn(move || {
            look(&mut |engines| {
                assert!(!engines.is_empty());
                looks.send(()).unwrap();
                // Not told meanwhile: the other thread waits for this one.
                let _ = taken.recv_timeout(LOOK_LIMIT / 4);
                over.store(true, SeqCst);
            });
        });
        looking.recv().unwrap();
        let engine = remove(token).unwrap();
        let was_over = over.load(SeqCst);
        let _ = took.send(());
        assert!(was_over, "it was taken out during a look");
        engine.destroy();
    });
}

#[test]
fn only_a_handle_of_a_parent_is_said_to_be_one() {
    let own = insert(Engine::create("P2PHANDSHAKE", "127.0.0.1", false).unwrap()).unwrap();
    assert_eq!(key(own).unwrap(), own & ((1 << KEY_BITS) - 1));
    // A process that was forked once more than this one.
    let later = own + (1 << KEY_BITS);
    for wrong in [0, later] {
        assert_eq!(key(wrong).unwrap_err().kind(), Class::Argument, "{wrong:#x}");
    }
    remove(own).unwrap().destroy();
}
