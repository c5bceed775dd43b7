use super::*;

fn nothing(peers: &Peers) -> Vec<(String, Traffic)> {
    peers.look().told()
}

fn names(peers: &Peers) -> Vec<String> {
    nothing(peers).into_iter().map(|(name, _)| name).collect()
}

#[test]
fn peers_keep_their_places_while_they_are_used_and_lose_them_to_others_then() {
    let peers = Peers::new(2);
    let [a, b] = ["a", "b"].map(|name| peers.enter(name).unwrap());
    assert!(Arc::ptr_eq(&a, &peers.enter("a").unwrap()), "one place per name");
    let full = peers.enter("c").unwrap();
    full.note_completed(Op::Read, 1, 10);
    assert_eq!(names(&peers), ["a", "b", "other"], "there is no place for a third one");
    a.note_completed(Op::Write, 3, 300);
    b.note_completed(Op::Read, 1, 1);
    drop(a);
    assert_eq!(nothing(&peers)[0].1.bytes, [0, 300], "a place that nobody uses is kept");
    let d = peers.enter("d").unwrap();
    assert_eq!(names(&peers), ["b", "d", "other"], "until somebody needs it");
    assert_eq!(*d.told.lock(), Traffic::default(), "who gets it begins anew");
    for number in 0..1000 {
        peers.enter(&format!("{number}"));
    }
    assert_eq!(nothing(&peers).len(), 3, "peers that come and go leave nothing");
}

#[test]
fn long_names_share_a_place_and_without_places_nothing_is_counted() {
    let peers = Peers::new(9);
    let long = "x".repeat(LONGEST_NAME);
    let first = peers.enter(&(long.clone() + "1")).unwrap();
    assert!(Arc::ptr_eq(&first, &peers.enter(&(long.clone() + "2")).unwrap()));
    assert_eq!(Peers::label(&peers.names(), &(long.clone() + "3")), long);
    assert_eq!(Peers::label(&peers.names(), "y"), OTHER);
    assert!(Arc::ptr_eq(&peers.enter(OTHER).unwrap(), &peers.other), "a peer that is called so");
    let none = Peers::new(0);
    assert!(none.enter("a").is_none() && nothing(&none).is_empty());
}

#[test]
fn no_counter_of_a_peer_falls() {
    let peers = Peers::new(1);
    let peer = peers.enter("a").unwrap();
    // A batch was there the last time, and is being freed now.
    *peer.told.lock() = Traffic { bytes: [5, 0], ..Traffic::default() };
    assert_eq!(nothing(&peers)[0].1.bytes, [5, 0]);
    peer.note_completed(Op::Read, 1, 7);
    assert_eq!(nothing(&peers)[0].1.bytes, [7, 0]);
}
