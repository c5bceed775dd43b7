//! CPU cost of the parts that every request passes: registry look-ups, batch ids, and a whole
//! submit–status–free round over the local transport, where nothing waits for a network.

#![allow(missing_docs)] // the functions that criterion's macros make

use criterion::{criterion_group, criterion_main, BatchSize, Criterion};
use std::hint::black_box;
use std::sync::Arc;
use transfer_engine::engine::submit::Request;
use transfer_engine::engine::Engine;
use transfer_engine::memory::{PeerAccess, Range, Registry};
use transfer_engine::runtime::slots::Slots;

fn registry(c: &mut Criterion) {
    let registry = Registry::default();
    let ranges: Vec<Range> = (1..=100_000u64).map(|n| Range { addr: n << 16, len: 1 << 15 }).collect();
    registry.insert(&ranges, "*", true).expect("disjoint ranges");
    let mut n = 0u64;
    c.bench_function("look up one of 100000 regions", |b| {
        b.iter(|| {
            n = n % 99_991 + 7;
            black_box(registry.use_for_peer(n << 16, 4096, PeerAccess::BOTH))
        })
    });
}

fn slots(c: &mut Criterion) {
    let slots = Slots::default();
    let key = slots.insert(Arc::new(0u64)).expect("room");
    c.bench_function("look up a batch id", |b| b.iter(|| black_box(slots.get(black_box(key)))));
    c.bench_function("issue and retire a batch id", |b| {
        b.iter_batched(
            || Arc::new(0u64),
            |value| slots.insert(value).map(|key| slots.remove(key)),
            BatchSize::SmallInput,
        )
    });
}

fn submit(c: &mut Criterion) {
    let engine = Engine::create("P2PHANDSHAKE", "127.0.0.1", true).expect("an engine");
    let memory = vec![0u8; 1 << 20];
    let base = memory.as_ptr() as u64;
    engine.register(&[Range { addr: base, len: 1 << 20 }], "*", true).expect("a region");
    for count in [1usize, 128] {
        c.bench_function(&format!("submit, poll and free {count} local copies of 64 bytes"), |b| {
            b.iter(|| {
                let batch = engine.allocate_batch(count)?;
                let entry = |index: usize| {
                    let source = base + 64 * index as u64;
                    Request { opcode: 1, source, target: 0, offset: source + (1 << 19), len: 64 }
                };
                engine.submit(batch, count, entry, None)?;
                for task in 0..count {
                    black_box(engine.task_status(batch, task)?);
                }
                engine.free_batch(batch)
            })
        });
    }
    engine.destroy();
}

criterion_group!(benches, registry, slots, submit);
criterion_main!(benches);
