//! Takes out of a queue what is to end, however much that is, and without needing memory for it.

use std::collections::VecDeque;

/// What was taken out.
pub(super) enum Picked<T> {
    /// As much as there is room for.
    Many(Vec<T>),
    /// There is no memory for several.
    One(Option<T>),
}

/// Takes out what `is_meant` picks; the others keep their order. `false`: there is more, for which there is no memory now.
pub(super) fn take_out<T>(queue: &mut VecDeque<T>, is_meant: impl Fn(&T) -> bool) -> (Picked<T>, bool) {
    take_out_by(queue, is_meant, |count| {
        let mut room = Vec::new();
        room.try_reserve_exact(count).ok().map(|()| room)
    })
}

fn take_out_by<T>(
    queue: &mut VecDeque<T>,
    is_meant: impl Fn(&T) -> bool,
    room: impl Fn(usize) -> Option<Vec<T>>,
) -> (Picked<T>, bool) {
    // Those that stay come to the front, in their order.
    let mut stay = 0;
    for at in 0..queue.len() {
        if !is_meant(&queue[at]) {
            queue.swap(stay, at);
            stay += 1;
        }
    }
    let count = queue.len() - stay;
    match room(count) {
        Some(mut out) => {
            out.extend(queue.drain(stay..));
            (Picked::Many(out), true)
        }
        None => (Picked::One(if count > 0 { queue.pop_back() } else { None }), count <= 1),
    }
}

impl<T> IntoIterator for Picked<T> {
    type Item = T;
    type IntoIter = std::iter::Chain<std::vec::IntoIter<T>, std::option::IntoIter<T>>;

    fn into_iter(self) -> Self::IntoIter {
        match self {
            Picked::Many(all) => all.into_iter().chain(None),
            Picked::One(one) => Vec::new().into_iter().chain(one),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_that_are_picked_go_and_the_others_keep_their_order_also_without_memory() {
        let is_even = |number: &u32| number.is_multiple_of(2);
        let mut queue: VecDeque<_> = (0..1000).collect();
        let (out, is_all) = take_out(&mut queue, is_even);
        assert_eq!((out.into_iter().count(), is_all), (500, true));
        assert!(queue.iter().copied().eq((0..1000).filter(|number| !is_even(number))));
        let mut queue: VecDeque<_> = (0..7).collect();
        let mut gone = Vec::new();
        loop {
            let (out, is_all) = take_out_by(&mut queue, is_even, |_| None);
            gone.extend(out);
            if is_all {
                break;
            }
        }
        gone.sort_unstable();
        assert_eq!((gone, Vec::from(queue)), (vec![0, 2, 4, 6], vec![1, 3, 5]));
        let mut queue = VecDeque::from([1]);
        let (out, is_all) = take_out_by(&mut queue, is_even, |_| None);
        assert_eq!((out.into_iter().count(), is_all, queue.len()), (0, true, 1));
    }
}
