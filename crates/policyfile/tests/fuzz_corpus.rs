//! What the fuzz target `policyfile` checks, over the corpus that is checked in and a bounded number
//! of inputs made from it.

#[path = "../../../fuzz/checks/policyfile.rs"]
mod checks;
#[path = "../../../fuzz/checks/mutate.rs"]
mod mutate;

#[test]
fn any_text_is_read_without_a_panic() {
    mutate::run(&mutate::corpus("policyfile"), 100_000, checks::check);
}
