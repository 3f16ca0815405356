//! Compiles BPF C for build scripts, which embed the object. Needs clang.
//!
//! Place on the line: before it; nothing of this is in a program that runs.
//! Knows nothing of: what the programs do.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Compiles `NAME.c` to `NAME.o` in cargo's `OUT_DIR`. Headers are looked for there and in `includes`.
/// Panics, as build scripts do, with what to do about it.
///
/// The helpers' header comes with libbpf-sys: the calling package depends on that crate directly, for
/// cargo tells only such ones where it is. So no libbpf of the system is needed.
pub fn compile(source: &str, includes: &[&str]) {
    println!("cargo::rerun-if-changed={source}");
    for directory in includes {
        println!("cargo::rerun-if-changed={directory}");
    }
    println!("cargo::rerun-if-env-changed=CLANG");
    let clang = env::var("CLANG").unwrap_or_else(|_| "clang".to_owned());
    let helpers = env::var("DEP_BPF_INCLUDE")
        .expect("libbpf-sys with its vendored libbpf says where its headers are");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let name = Path::new(source).file_name().expect("a file has a name");
    let object = out.join(name).with_extension("o");
    let mut command = Command::new(&clang);
    command
        .args(["-target", "bpf", "-O2", "-g", "-mcpu=v3"])
        // Kernels before 6.4 refuse a loop whose last instruction falls through to its first, which
        // is what the placement of blocks likes to make.
        .args(["-mllvm", "-disable-block-placement"])
        .args(["-Wall", "-Werror"])
        .arg("-I")
        .arg(&out);
    for directory in includes {
        command.args(["-I", directory]);
    }
    command.arg("-I").arg(&helpers);
    for directory in architecture_headers(&clang) {
        command.arg("-idirafter").arg(directory);
    }
    command.args(["-c", source, "-o"]).arg(&object);
    match command.status() {
        Ok(status) if status.success() => {}
        Ok(_) => panic!("{source} doesn't compile (see above); the command was {command:?}"),
        Err(error) => panic!(
            "BPF programs are compiled by clang, and running `{clang}` failed: {error}. \
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
