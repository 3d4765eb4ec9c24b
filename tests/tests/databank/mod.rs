//! What the databank promises an app, held against every driver through the real host: one test a
//! claim and driver, all alike. What differs between drivers is a bug.
//!
//! A claim gets a type of documents of its own, in a store that it shares with the claims that run at
//! the same time. How the stores behave while workers come and go is in `databank_restarts.rs`.

mod documents;
mod growing;
mod limits;
mod searching;
mod sorting;
mod streaming;
mod values;
mod writers;

use std::collections::BTreeMap;

use app_host_tests::databank::{Client, Driver, Shared};

/// What a claim is held against.
struct Bank {
    host: Shared,
    /// The type of the claim's documents.
    kind: &'static str,
    driver: Driver,
}

impl Bank {
    fn new(driver: Driver, kind: &'static str) -> Self {
        Self { host: driver.shared_host(), kind, driver }
    }

    fn client(&self) -> Client {
        Client::new(&self.host)
    }

    /// As many clients as asked for, spread evenly over all workers.
    fn spread_clients(&self, count: usize) -> Vec<Client> {
        let mut clients: Vec<_> = Client::of_each_worker(&self.host).into_values().collect();
        assert_eq!(clients.len() as u64, self.driver.workers(), "every worker has a client");
        while clients.len() < count {
            clients.extend(Client::of_each_worker(&self.host).into_values());
        }
        clients.truncate(count);
        let mut share = BTreeMap::new();
        for client in &mut clients {
            *share.entry(client.worker()).or_insert(0) += 1;
        }
        assert_eq!(share.len() as u64, self.driver.workers().min(count as u64), "{share:?}");
        clients
    }
}

macro_rules! on_every_driver {
    ($($claims:tt)*) => {
        mod sqlite { on_driver! { Sqlite: $($claims)* } }
        mod memory { on_driver! { Memory: $($claims)* } }
        mod mongodb_standalone { on_driver! { MongodbStandalone: $($claims)* } }
        mod mongodb_replica_set { on_driver! { MongodbReplicaSet: $($claims)* } }
    };
}

macro_rules! on_driver {
    ($driver:ident: $($room:ident { $($claim:ident,)* })*) => {
        use app_host_tests::databank::Driver;
        use crate::databank::Bank;
        $($(
            #[test]
            fn $claim() {
                crate::databank::$room::$claim(&Bank::new(Driver::$driver, stringify!($claim)));
            }
        )*)*
    };
}

on_every_driver! {
    documents {
        create_writes_what_is_not_there_yet,
        update_writes_what_is_there,
        save_writes_either_way,
        compare_and_save_writes_what_nobody_has_written_to,
        remove_takes_what_is_there,
        each_write_gives_another_revision,
        document_made_again_has_not_its_old_revision,
        types_are_apart,
        read_many_gives_those_that_exist_in_the_order_of_the_ids,
        faults_name_the_document,
    }
    values {
        any_text_is_an_id_and_comes_back,
        any_text_is_a_value_and_a_key_and_comes_back,
        any_json_comes_back,
        deep_documents_come_back,
        large_documents_come_back,
        numbers_come_back_as_they_went_in,
        types_of_rust_come_back,
        nothing_in_a_text_becomes_an_operator,
    }
    limits {
        types_have_1_to_100_plain_bytes,
        ids_have_1_to_512_bytes_without_nul,
        paths_have_at_most_500_bytes_and_32_plain_keys,
        documents_are_objects,
        keys_are_plain,
        documents_have_at_most_90_levels,
        documents_have_at_most_one_and_a_half_mebibytes,
        whole_numbers_are_those_of_i64_and_floats_are_finite,
        conditions_are_at_most_16_of_plain_values,
        sorts_have_at_most_8_paths,
        read_many_takes_at_most_1000_valid_ids,
    }
    growing {
        increment_makes_what_is_not_there,
        increment_adds_to_whole_numbers_only,
        increment_never_overflows,
        append_makes_what_is_not_there,
        append_adds_any_value_to_lists_only,
        paths_of_writes_go_through_objects_only,
        keys_with_dots_are_stored_and_not_addressed,
        what_fails_to_grow_is_left_as_it_was,
        document_grows_until_it_is_invalid_and_stays_readable,
        deep_values_are_appended_and_stay_readable,
    }
    searching {
        search_finds_equal_values_and_no_others,
        search_follows_paths_through_objects_only,
        all_conditions_must_hold,
        search_stays_within_its_type,
        search_shows_documents_as_read_does,
        scan_gives_all_by_id,
        skip_and_limit_cut_a_window,
        windows_of_a_sorted_search_fit_together,
    }
    sorting {
        values_sort_by_kind_and_then_by_value,
        nothing_at_a_path_sorts_as_null,
        several_paths_sort_one_after_the_other,
        ids_decide_last_by_their_bytes,
    }
    streaming {
        ten_thousand_documents_are_streamed_in_bounded_memory,
        search_that_nobody_reads_on_harms_nobody,
        search_gives_each_document_once_while_others_are_written,
    }
    writers {
        increments_of_several_workers_lose_nothing,
        appends_of_several_workers_lose_nothing,
        increments_and_appends_on_one_document_lose_nothing,
        compare_and_save_has_one_winner_a_round,
        create_has_one_winner,
        remove_has_one_winner,
        what_one_worker_was_told_is_written_every_other_reads,
        writes_whose_client_has_gone_harm_nobody,
    }
}
