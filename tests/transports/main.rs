//! One suite over every transport: the same cases over TCP, TCP over two NICs, RDMA on the simulated libibverbs, RDMA beside TCP, the memory of
//! engines on one host, the own segment, and a transport that exists for tests only. What only one of them does is tested beside it.

mod cases;
#[path = "../common/mod.rs"]
mod common;
mod memory;
mod node;
mod pair;
mod peer;
mod store;
mod traffic;

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use common::net::{Net, BOTH};
use node::Kind;

/// Runs a case over a transport, as the test `name`, in a process of its own: its settings and, with NICs, its
/// libibverbs are others.
fn run(kind: Kind, name: &str, case: fn(Kind)) {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let registry = format!("te-suite-{}-{}", std::process::id(), NEXT.fetch_add(1, Relaxed));
    let _removed = Registry(&registry);
    let environment = [
        // No test may wait for the descriptor that is read again from time to time.
        ("MC_METADATA_REVALIDATE_MS", "0"),
        ("MC_TCP_BIND_ADDRESS", "127.0.0.1"),
        ("SIMVERBS_DEVICES", "sim0,sim1"),
        // Slow enough for requests to be under way when something happens.
        ("SIMVERBS_GBPS", "10"),
        ("SIMVERBS_QUIET", "1"),
        // So long a NIC tries to reach a peer that is gone.
        ("SIMVERBS_RETRY_MS", "100"),
        ("SIMVERBS_SHM", &registry),
    ];
    let parent = match kind {
        Kind::Rdma | Kind::Both => common::in_simverbs(name, &environment),
        Kind::Nics => common::in_child(name, &[&environment[..], &[BOTH]].concat()),
        Kind::Tcp | Kind::Shm | Kind::SameHost | Kind::Own | Kind::Echo => {
            common::in_child(name, &environment)
        }
    };
    if parent {
        return;
    }
    match kind {
        Kind::Nics => Net::new(name).iter().for_each(|_| case(kind)),
        _ => case(kind),
    }
}

/// The simulated NICs' registry of one case, removed by the process that has started the case.
struct Registry<'a>(&'a str);

impl Drop for Registry<'_> {
    fn drop(&mut self) {
        for entry in std::fs::read_dir("/dev/shm").into_iter().flatten().flatten() {
            let name = entry.file_name();
            if name.to_str().is_some_and(|name| name.starts_with("simverbs-") && name.ends_with(self.0)) {
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }
}

/// Makes a test of each case of each list, in a module for the transport.
macro_rules! tests {
    ($module:ident: $kind:ident, $({ $($case:ident,)* })*) => {
        mod $module {
            $($(
                #[test]
                fn $case() {
                    let name = concat!(stringify!($module), "::", stringify!($case));
                    super::run(super::Kind::$kind, name, super::cases::$case);
                }
            )*)*
        }
    };
}

/// The lists of cases: for every transport, for those that lead to another engine, for those that lead to another
/// process, for RDMA beside TCP, for those that only this project knows.
macro_rules! suite {
    (
        everywhere $everywhere:tt to_engines $engines:tt to_processes $processes:tt to_both $both:tt to_extensions $extensions:tt
    ) => {
        tests! { tcp: Tcp, $everywhere $engines $processes }
        #[cfg(feature = "rdma")]
        tests! { rdma: Rdma, $everywhere $engines $processes }
        #[cfg(feature = "rdma")]
        tests! { rdma_beside_tcp: Both, $everywhere $engines $processes $both }
        tests! { shm: Shm, $everywhere $engines $processes $extensions }
        tests! { shm_beside_tcp: SameHost, $everywhere $engines $processes }
        tests! { own: Own, $everywhere }
        tests! { echo: Echo, $everywhere $engines $extensions }
    };
}

suite! {
    everywhere {
        every_size_arrives_in_both_directions,
        p01_many_requests_of_many_batches_arrive,
        two_threads_do_not_disturb_each_other,
        p37_addresses_that_nobody_registered_are_refused,
        a_notification_follows_its_batch,
        p02_memory_goes_away_under_traffic,
        p15_engines_go_away_under_traffic,
        p02_a_canceled_batch_ends_and_leaves_its_neighbours_alone,
        p16_a_task_tells_when_it_came_how_far,
    }
    to_engines {
        a_segment_that_is_removed_under_traffic_ends_it,
        a_segment_that_is_removed_at_once_lives_while_it_has_work,
        p03_a_peer_that_leaves_under_traffic_fails_its_tasks,
        p04_a_peer_that_comes_back_where_it_was_is_reached,
        p04_a_peer_that_comes_back_elsewhere_is_reached,
        p07_a_peer_that_comes_back_without_memory_is_left_alone,
        memory_that_a_peer_registers_after_a_refusal_is_reached_at_once,
    }
    to_processes {
        p03_a_peer_that_is_killed_under_traffic_fails_its_tasks,
    }
    to_both {
        whichever_transport_both_sides_have_is_taken_rdma_first,
    }
    to_extensions {
        buffers_in_another_transports_form_are_reached,
    }
}

// Those that need no store: there is none in the namespaces.
tests! {
    tcp_over_nics: Nics,
    {
        every_size_arrives_in_both_directions,
        p01_many_requests_of_many_batches_arrive,
        two_threads_do_not_disturb_each_other,
        p37_addresses_that_nobody_registered_are_refused,
        a_notification_follows_its_batch,
        p02_memory_goes_away_under_traffic,
        p15_engines_go_away_under_traffic,
        p02_a_canceled_batch_ends_and_leaves_its_neighbours_alone,
        p16_a_task_tells_when_it_came_how_far,
        a_segment_that_is_removed_under_traffic_ends_it,
        a_segment_that_is_removed_at_once_lives_while_it_has_work,
        p03_a_peer_that_leaves_under_traffic_fails_its_tasks,
        memory_that_a_peer_registers_after_a_refusal_is_reached_at_once,
        p03_a_peer_that_is_killed_under_traffic_fails_its_tasks,
    }
}
