//! Compiles the kernel side: layout.rs -> layout.h -> portcullis.bpf.o, which the crate embeds.
//!
//! Needs clang. The helpers' header comes with libbpf-sys, so no libbpf of the system is needed.

#[path = "src/layout.rs"]
#[allow(dead_code, unreachable_pub)]
mod layout;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const SOURCES: &str = "src/bpf";
const MAIN_SOURCE: &str = "src/bpf/portcullis.bpf.c";

fn main() {
    println!("cargo::rerun-if-changed=src/layout.rs");
    println!("cargo::rerun-if-changed={SOURCES}");
    println!("cargo::rerun-if-env-changed=CLANG");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let header = out.join("layout.h");
    fs::write(&header, layout::header())
        .unwrap_or_else(|error| panic!("writing {}: {error}", header.display()));
    compile(&out);
}

fn compile(out: &Path) {
    let clang = env::var("CLANG").unwrap_or_else(|_| "clang".to_owned());
    let helpers = env::var("DEP_BPF_INCLUDE")
        .expect("libbpf-sys with its vendored libbpf says where its headers are");
    let mut command = Command::new(&clang);
    command
        .args(["-target", "bpf", "-O2", "-g", "-mcpu=v3"])
        // Kernels before 6.4 refuse a loop whose last instruction falls through to its first, which
        // is what the placement of blocks likes to make.
        .args(["-mllvm", "-disable-block-placement"])
        .args(["-Wall", "-Werror"])
        .arg("-I")
        .arg(out)
        .args(["-I", SOURCES])
        .arg("-I")
        .arg(&helpers);
    for directory in architecture_headers(&clang) {
        command.arg("-idirafter").arg(directory);
    }
    command
        .args(["-c", MAIN_SOURCE, "-o"])
        .arg(out.join("portcullis.bpf.o"));
    match command.status() {
        Ok(status) if status.success() => {}
        Ok(_) => panic!("{MAIN_SOURCE} doesn't compile (see above); the command was {command:?}"),
        Err(error) => panic!(
            "the kernel side is compiled by clang, and running `{clang}` failed: {error}. \
             Install it (Debian: apt-get install clang), or set CLANG to its path."
        ),
    }
}

/// For the target `bpf` clang doesn't look where Debian keeps `asm/types.h`.
fn architecture_headers(clang: &str) -> Vec<PathBuf> {
    let triple = |program: &str, option: &str| {
        let output = Command::new(program).arg(option).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        let text = text.trim();
        (output.status.success() && !text.is_empty()).then(|| text.to_owned())
    };
    let machine = env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_default();
    [
        triple("gcc", "-print-multiarch"),
        triple(clang, "-print-multiarch"),
        Some(format!("{machine}-linux-gnu")),
    ]
    .into_iter()
    .flatten()
    .map(|t| Path::new("/usr/include").join(t))
    .filter(|directory| directory.join("asm/types.h").is_file())
    .take(1)
    .collect()
}
