//! What the fuzz target `wire` checks, over the corpus that is checked in and a bounded number of
//! inputs made from it.

#[path = "../../../fuzz/checks/wire.rs"]
mod checks;
#[path = "../../../fuzz/checks/mutate.rs"]
mod mutate;

#[test]
fn any_bytes_are_parsed_without_a_panic() {
    mutate::run(&mutate::corpus("wire"), 2_000_000, checks::check);
}
