//! Compiles the kernel side: layout.rs -> layout.h -> portcullis.bpf.o, which the crate embeds.

#[path = "src/layout.rs"]
#[allow(dead_code, unreachable_pub)]
mod layout;

use std::env;
use std::fs;
use std::path::PathBuf;

fn main() {
    println!("cargo::rerun-if-changed=src/layout.rs");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let header = out.join("layout.h");
    fs::write(&header, layout::header())
        .unwrap_or_else(|error| panic!("writing {}: {error}", header.display()));
    bpf_build::compile("src/bpf/portcullis.bpf.c", &["src/bpf"]);
}
