//! Counters of a transport, as `showLinks` and metrics tell them.

/// Declares `Stats` with a counter per name. They publish nothing but themselves, so all accesses may be relaxed. The prefix is
/// put before the names where they are told, not in the code.
macro_rules! counters {
    (prefix $prefix:literal; $($(#[$doc:meta])* $name:ident,)*) => {
        /// All counters since installation.
        #[derive(Default)]
        pub(super) struct Stats {
            $($(#[$doc])* pub $name: ::std::sync::atomic::AtomicU64,)*
        }

        impl Stats {
            /// Name and value of each.
            pub(super) fn snapshot(&self) -> Vec<(&'static str, u64)> {
                let load = |counter: &::std::sync::atomic::AtomicU64| {
                    counter.load(::std::sync::atomic::Ordering::Relaxed)
                };
                vec![$((concat!($prefix, stringify!($name)), load(&self.$name)),)*]
            }
        }
    };
}

pub(crate) use counters;
