//! Every model, each a test.

use transfer_engine_models::{engine, regions, slices, slots, transport};

macro_rules! models {
    ($($module:path: $($name:ident),+;)+) => {
        $($(
            #[test]
            fn $name() {
                use $module as module;
                module::$name();
            }
        )+)+
    };
}

models! {
    slices: p01_a_completed_task_has_all_its_bytes, ends_of_several_slices_are_told_once, an_end_after_a_failure_is_told_too, p16_a_failed_task_says_why,
        no_canceled_slice_stays_queued, p02_a_failed_task_is_not_drained_before_its_trails_end;
    engine::models: p03_a_wait_ends, a_descriptor_tells_of_the_end, a_descriptor_hears_of_new_tasks,
        a_batch_whose_end_was_seen_can_be_freed, a_notification_is_due_once,
        p14_nothing_is_left_of_a_submit_call_when_the_engine_ends;
    engine::segment::models: p07_a_turn_shows_what_was_published_before_it, one_reads_at_a_time_and_each_turn_ends;
    regions: p02_unregistered_memory_is_not_touched, p02_a_region_that_is_revoked_admits_no_use, the_last_registration_ends_a_region_once;
    slots: p08_a_removed_key_finds_nothing;
    transport::rdma::models: credit_is_never_hidden, credit_is_lent_once, no_reason_to_look_is_lost;
    transport::shm::models: a_message_is_whole, whoever_sleeps_is_woken,
        p01_what_was_read_after_a_connection_was_taken_back_is_not_believed;
}
