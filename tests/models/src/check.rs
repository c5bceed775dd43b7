//! How models are run.

/// Runs a model in every order in which its threads can take turns, as long as no more than `switches` of them are forced upon a
/// thread that could go on.
pub fn each_execution(switches: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(switches);
    builder.check(model);
}
