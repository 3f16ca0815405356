//! Any text as a policy file.
#![no_main]

#[path = "../checks/policyfile.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| checks::check(bytes));
