//! What every adapter must do, one function per behaviour.
//!
//! An adapter's tests expand [`crate::store_conformance!`] with an async function that makes an
//! empty store, and get one test per behaviour.

pub mod events;
pub mod fixture;
pub mod isolation;
pub mod keys;
pub mod paging;
pub mod persist;
pub mod sandbox_sessions;
pub mod sandboxes;
pub mod secrets;
pub mod session_log;
pub mod sessions;
pub mod settings;
pub mod sleep;
pub mod snapshots;
pub mod templates;

use crate::{Result, StoreError};

/// Tasks that race in the tests of concurrency.
const RACERS: usize = 16;

/// Emits one `#[tokio::test]` per behaviour. `$make` is an async function without arguments that
/// returns `(Arc<dyn Store>, guard)`; the guard is dropped after the test.
#[macro_export]
macro_rules! store_conformance {
    ($make:path) => {
        $crate::store_conformance!(@cases $make,
            sandboxes: [
                sandbox_comes_back_as_it_was,
                sandbox_insert_twice_is_refused,
                sandbox_insert_needs_generation_one,
                sandbox_update_of_a_stale_generation_conflicts,
                sandbox_update_of_a_missing_one_is_not_found,
                sandbox_concurrent_updates_lose_none,
                sandbox_refused_update_leaves_no_event,
                sandbox_removal_is_repeatable,
                sandbox_all_has_every_state_and_workspace,
                sandbox_due_lists_running_ones_by_deadline,
                sandbox_due_follows_updates,
                sandbox_times_are_kept_to_the_millisecond,
            ],
            paging: [
                sandbox_list_pages_in_both_orders,
                sandbox_list_is_stable_under_inserts,
                sandbox_list_survives_removal_of_the_cursor,
                sandbox_list_filters,
                sandbox_list_metadata_needs_every_pair,
                sandbox_list_clamps_the_limit,
                sandbox_list_pages_while_others_insert,
                template_list_pages_by_name,
                build_list_pages_newest_first,
                foreign_cursors_are_refused,
            ],
            sleep: [
                sandbox_comes_back_from_every_rung,
                sandbox_sleep_policy_is_kept_to_the_millisecond,
                sandbox_due_covers_every_rung,
                sandbox_list_filters_by_state,
                sandbox_sleeping_ones_count,
            ],
            snapshots: [
                snapshot_comes_back_as_it_was,
                snapshot_insert_twice_is_refused,
                snapshot_insert_needs_generation_one,
                snapshot_update_of_a_stale_generation_conflicts,
                snapshot_update_of_a_missing_one_is_not_found,
                snapshot_concurrent_updates_lose_none,
                snapshot_names_are_unique_per_workspace,
                snapshot_name_is_free_once_its_snapshot_goes,
                snapshot_name_race_has_one_winner,
                snapshot_removal_is_repeatable,
                snapshot_list_filters,
                snapshot_list_pages_newest_first,
                snapshot_all_has_every_state_and_workspace,
                snapshot_usage_is_that_of_the_workspace,
                sandbox_and_snapshot_change_together,
                sandbox_and_snapshot_fail_together,
            ],
            sandbox_sessions: [
                sandbox_session_comes_back_as_it_was,
                z14_a_sandbox_has_one_session,
                sandbox_session_needs_its_sandbox,
                sandbox_session_touch_never_moves_back,
                sandbox_session_ends_with_its_sandbox,
                sandbox_session_removal_says_whether_it_was_there,
                sandbox_session_list_filters,
                sandbox_session_list_pages_oldest_first,
                sandbox_session_trim_spares_the_living_and_the_young,
            ],
            events: [
                event_log_is_dense_and_ordered,
                event_log_is_dense_under_concurrency,
                event_log_survives_its_sandbox,
                event_list_starts_after_and_stops_at_limit,
                event_trim_spares_the_living_and_the_young,
            ],
            templates: [
                template_comes_back_as_it_was,
                template_names_are_unique_per_workspace,
                template_names_of_the_server_are_unique,
                template_insert_race_has_one_winner,
                template_by_name_prefers_the_workspaces_own,
                template_update_keeps_the_rules,
                template_removal_takes_builds_along,
                build_states_come_back_as_they_were,
                build_needs_its_template,
                build_unfinished_lists_what_runs,
                build_log_keeps_order_under_concurrency,
                layers_in_use_are_those_of_builds_and_cache,
            ],
            keys: [
                key_is_found_by_digest,
                key_digest_is_unique,
                key_list_is_oldest_first,
                key_removal_says_whether_it_was_there,
                key_touch_never_moves_back,
            ],
            secrets: [
                secret_comes_back_as_it_was,
                secret_names_are_unique_per_workspace,
                secret_update_needs_the_version_before,
                secret_concurrent_updates_lose_none,
                secret_list_pages_by_name,
                volume_lives_in_its_workspace,
            ],
            settings: [
                setting_init_keeps_the_first_value,
                setting_init_race_agrees_on_one_value,
                idempotency_claim_is_told_what_is_known,
                idempotency_claim_race_has_one_winner,
                idempotency_freed_key_can_be_claimed_again,
                idempotency_trim_forgets_the_old,
            ],
            sessions: [
                session_comes_back_as_it_was,
                session_insert_twice_is_refused,
                session_insert_needs_generation_one,
                session_update_of_a_stale_generation_conflicts,
                session_update_of_a_missing_one_is_not_found,
                session_names_are_unique_among_their_holders,
                session_name_race_has_one_winner,
                session_list_filters,
                session_list_pages_newest_first,
                session_list_is_stable_under_inserts,
                session_ended_lists_the_oldest_first,
                session_removal_takes_everything_along,
            ],
            session_log: [
                session_log_is_dense_per_stream,
                session_log_is_dense_under_concurrency,
                session_log_comes_back_as_it_was,
                session_append_writes_all_of_it,
                session_append_of_a_stale_epoch_writes_nothing,
                session_append_of_a_stale_record_writes_nothing,
                session_append_needs_its_session,
                session_append_of_nothing_tells_the_end,
                session_claims_race_and_one_writes,
                session_trim_moves_the_beginning,
                session_trim_is_per_stream_and_never_moves_back,
                session_read_stops_at_its_limits,
                session_read_of_any_place_is_answered,
                session_read_back_is_newest_first,
                session_turns_are_replaced_by_number,
            ],
            persist: [
                persist_put_keeps_the_time_of_the_first,
                persist_list_goes_by_time_and_id,
                persist_list_is_stable_under_inserts,
                persist_events_go_by_index,
                persist_event_repeated_is_no_error,
                persist_event_with_a_taken_place_is_refused,
                persist_event_race_has_one_winner,
                persist_last_events_come_first,
                persist_removal_takes_events_along,
                persist_stays_within_the_workspace,
            ],
            isolation: [
                lists_and_counts_stay_within_the_workspace,
                idempotency_keys_stay_within_the_workspace,
            ],
        );
    };
    (@cases $make:path, $($module:ident: [$($case:ident,)*],)*) => {
        $($(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                let (store, _guard) = $make().await;
                $crate::conformance::$module::$case(store).await;
            }
        )*)*
    };
}

#[track_caller]
fn assert_conflict<T>(result: Result<T>) {
    match result {
        Err(StoreError::Conflict { .. }) => {}
        Err(other) => panic!("wanted Conflict, got {other:?}"),
        Ok(_) => panic!("wanted Conflict, got Ok"),
    }
}

#[track_caller]
fn assert_constraint<T>(result: Result<T>) {
    match result {
        Err(StoreError::Constraint { .. }) => {}
        Err(other) => panic!("wanted Constraint, got {other:?}"),
        Ok(_) => panic!("wanted Constraint, got Ok"),
    }
}

#[track_caller]
fn assert_not_found<T>(result: Result<T>) {
    match result {
        Err(StoreError::NotFound { .. }) => {}
        Err(other) => panic!("wanted NotFound, got {other:?}"),
        Ok(_) => panic!("wanted NotFound, got Ok"),
    }
}

#[track_caller]
fn assert_invalid_cursor<T>(result: Result<T>) {
    match result {
        Err(StoreError::InvalidCursor) => {}
        Err(other) => panic!("wanted InvalidCursor, got {other:?}"),
        Ok(_) => panic!("wanted InvalidCursor, got Ok"),
    }
}
