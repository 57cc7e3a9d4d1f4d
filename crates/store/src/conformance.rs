//! What every adapter must do, one function per behaviour.
//!
//! An adapter's tests expand [`crate::store_conformance!`] with an async function that makes an
//! empty store, and get one test per behaviour.

pub mod analytics;
pub mod audit;
pub mod billing;
pub mod events;
pub mod fixture;
pub mod isolation;
pub mod keys;
pub mod leases;
pub mod paging;
pub mod persist;
pub mod runs;
pub mod sandbox_sessions;
pub mod sandboxes;
pub mod secrets;
pub mod session_log;
pub mod sessions;
pub mod settings;
pub mod sleep;
pub mod sleep_kept;
pub mod snapshots;
pub mod templates;
pub mod usage;
pub mod workspaces;

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
                sandbox_of_runs_lists_those_with_the_label,
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
                sandbox_running_ones_count_without_those_kept_asleep,
            ],
            sleep_kept: [
                sleep_defaults_need_the_generation_before,
                sleep_defaults_race_has_one_winner,
                sleep_defaults_go_with_their_workspace,
                holds_come_back_until_they_are_over,
                hold_is_released_once,
                holds_of_runs_are_walked_over,
                holds_go_with_their_sandbox,
                holds_of_many_at_once_are_all_kept,
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
                layers_in_use_are_those_of_builds,
            ],
            keys: [
                key_is_found_by_digest,
                key_digest_is_unique,
                key_list_is_oldest_first,
                key_removal_says_whether_it_was_there,
                key_touch_never_moves_back,
                key_rotation_keeps_the_secret_before,
            ],
            workspaces: [
                workspace_comes_back_as_it_was,
                workspace_has_its_owner_as_a_member,
                workspace_update_needs_the_generation_before,
                workspace_list_pages_oldest_first,
                workspace_removing_lists_those_that_go,
                workspace_purge_takes_everything_along,
                members_are_kept_once_per_workspace,
                member_race_has_one_winner,
                limits_need_the_generation_before,
            ],
            audit: [
                audit_log_comes_back_as_it_was,
                audit_append_has_to_follow_on,
                audit_race_has_one_winner,
                audit_list_filters_and_pages_newest_first,
                audit_trim_keeps_the_chains_beginning,
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
                session_scan_passes_every_session_once,
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
            runs: [
                run_comes_back_in_every_state,
                run_insert_twice_is_refused,
                run_write_of_a_stale_generation_writes_nothing,
                run_that_ended_never_changes,
                run_race_has_one_winner,
                run_rate_is_exact_under_concurrency,
                run_rates_hold_together,
                run_ended_lists_the_oldest_first,
                run_key_starts_one,
                run_log_is_dense_and_read_from_a_place,
                run_list_filters,
                run_list_pages_newest_first,
                run_is_found_by_trace_in_its_workspace,
                run_unfinished_lists_what_goes_on,
                run_forget_leaves_hashes,
                run_removal_takes_its_log_along,
            ],
            usage: [
                usage_is_booked_once,
                usage_of_a_refused_write_is_not_booked,
                usage_totals_are_exact_under_concurrency,
                usage_stays_within_workspace_and_month,
                artifact_comes_back_and_is_reviewed,
                artifact_of_a_path_is_replaced,
                artifact_limit_is_exact_under_concurrency,
                artifact_list_filters_and_pages,
                artifact_aged_lists_the_oldest_first,
                books_go_with_their_workspace,
            ],
            analytics: [
                run_reports_are_those_of_a_loop,
                run_reports_follow_every_change,
                usage_reports_are_those_of_a_loop,
                tools_and_states_are_counted,
            ],
            billing: [
                price_tables_have_no_gaps,
                price_race_has_one_winner,
                budget_comes_back_as_it_was,
                budget_race_lets_in_what_fits,
                budget_reservation_is_made_once_and_given_back,
                budget_alert_is_told_once,
                webhook_comes_back_as_it_was,
                webhook_events_go_to_those_that_want_them_once,
                webhook_delivery_follows_its_tries,
                webhook_deliveries_are_replayed_and_trimmed,
                happenings_are_noted_where_somebody_is_told,
                meter_books_once_and_for_its_run,
                budget_counts_what_is_booked,
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

/// The same for stores that several servers share: `$make` returns `(leases::Shared, guard)`.
#[macro_export]
macro_rules! lease_conformance {
    ($make:path) => {
        $crate::lease_conformance!(@cases $make, [
            a_new_sandbox_is_its_maker_s,
            a_lease_that_was_let_go_is_free,
            a_lease_is_renewed_by_its_own_process,
            a_lease_in_time_is_not_taken,
            a_late_owner_writes_nothing,
            a_late_owner_writes_nothing_about_what_is_gone,
            a_restart_fences_the_process_before,
            a_race_for_a_lease_has_one_winner,
            a_write_and_a_taking_have_an_order,
            a_wish_is_heard_and_refused_or_granted,
            a_start_finds_its_own,
            what_is_due_elsewhere_is_not_shown,
            what_nobody_had_is_the_first_node_s,
            a_store_of_one_server_has_no_leases,
        ]);
    };
    (@cases $make:path, [$($case:ident,)*]) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                let (shared, _guard) = $make().await;
                $crate::conformance::leases::$case(shared).await;
            }
        )*
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
