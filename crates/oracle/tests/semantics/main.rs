//! docs/semantics.md, sentence by sentence, asked of the oracle.

mod elision;
mod flows;
mod fragments;
mod guard;
mod policy;
mod support;
mod switch;
mod userspace;
