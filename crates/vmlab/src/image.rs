//! What a machine boots: Debian's cloud kernel, and an initial RAM disk of busybox and a few modules.
//!
//! The kernel's package is downloaded and unpacked below the cache directory, never installed. The
//! RAM disk is an uncompressed "newc" archive: a header of hexadecimal fields per file.

use crate::Failure;
use crate::command::{output, run};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A kernel with its modules.
pub(crate) struct Kernel {
    pub(crate) image: PathBuf,
    modules: PathBuf,
}

impl Kernel {
    /// From the cache, or from the host's package archive.
    pub(crate) fn fetch(cache: &Path) -> Result<Kernel, Failure> {
        if std::env::consts::ARCH != "x86_64" {
            return Err(Failure::new("the machines are x86_64; this host is not"));
        }
        let tree = cache.join("kernel");
        if !tree.is_dir() {
            download(cache, &tree)?;
        }
        let image = only_entry(&tree.join("boot"), "vmlinuz-")?;
        let modules = only_entry(&tree.join("lib/modules"), "")?;
        Ok(Kernel { image, modules })
    }

    /// The modules and what they need, in an order in which they can be loaded.
    fn modules(&self, wanted: &[&str]) -> Result<Vec<Module>, Failure> {
        let mut loadable = Vec::new();
        let mut seen = BTreeSet::new();
        for name in wanted {
            self.add_module(name, &mut seen, &mut loadable)?;
        }
        Ok(loadable)
    }

    fn add_module(
        &self,
        name: &str,
        seen: &mut BTreeSet<String>,
        loadable: &mut Vec<Module>,
    ) -> Result<(), Failure> {
        if !seen.insert(name.to_owned()) {
            return Ok(());
        }
        let file = format!("{name}.ko");
        let path = find(&self.modules, &file)
            .ok_or_else(|| Failure::new(format!("the kernel has no module {file}")))?;
        let content = fs::read(&path).map_err(|e| Failure::at(&path, e))?;
        for needed in depends(&content) {
            self.add_module(&needed, seen, loadable)?;
        }
        loadable.push(Module { file, content });
        Ok(())
    }
}

struct Module {
    file: String,
    content: Vec<u8>,
}

/// What a machine gets besides busybox.
#[derive(Default)]
pub(crate) struct Contents<'a> {
    /// Loaded at the start, with what they need.
    pub(crate) modules: &'a [&'a str],
    /// Programs of this host, for /bin, with their libraries.
    pub(crate) programs: &'a [&'a Path],
    /// Directories of this host, at the same place there: files one level deep.
    pub(crate) directories: &'a [&'a Path],
}

/// Writes the RAM disk to `path`. Its init answers commands on the console (`machine`).
pub(crate) fn write_initrd(
    path: &Path,
    kernel: &Kernel,
    contents: &Contents<'_>,
) -> Result<(), Failure> {
    let mut archive = Archive::default();
    for directory in [
        "bin", "dev", "proc", "sys", "modules", "run", "tmp", "var/lib",
    ] {
        archive.directory(directory);
    }
    let busybox = Path::new("/bin/busybox");
    let content = fs::read(busybox).map_err(|e| Failure::at(busybox, e))?;
    archive.file("bin/busybox", 0o755, &content);
    let mut load = String::new();
    for module in kernel.modules(contents.modules)? {
        archive.file(&format!("modules/{}", module.file), 0o644, &module.content);
        load += &format!("insmod /modules/{}\n", module.file);
    }
    for program in contents.programs {
        archive.program(program)?;
    }
    for directory in contents.directories {
        archive.copy(directory)?;
    }
    archive.file("init", 0o755, INIT.replace("LOAD\n", &load).as_bytes());
    fs::write(path, archive.finish()).map_err(|e| Failure::at(path, e))
}

/// One line in, its output out, and a line with its exit status. The console doesn't echo.
const INIT: &str = "#!/bin/busybox sh
/bin/busybox --install -s /bin 2>/dev/null
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
LOAD
ip link set lo up
stty -echo -onlcr
echo '@@ready'
while read -r line; do
    sh -c \"$line\" </dev/null 2>&1
    echo \"@@status $?\"
done
";

#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    entries: u32,
    directories: BTreeSet<String>,
}

impl Archive {
    /// Also the directories above it.
    fn directory(&mut self, path: &str) {
        for (at, _) in path.match_indices('/').chain([(path.len(), "")]) {
            if self.directories.insert(path[..at].to_owned()) {
                self.entry(&path[..at], 0o040_755, &[]);
            }
        }
    }

    fn file(&mut self, path: &str, mode: u32, content: &[u8]) {
        if let Some((directory, _)) = path.rsplit_once('/') {
            self.directory(directory);
        }
        self.entry(path, 0o100_000 | mode, content);
    }

    /// Into /bin, and its libraries to where it looks for them.
    fn program(&mut self, path: &Path) -> Result<(), Failure> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let content = fs::read(path).map_err(|e| Failure::at(path, e))?;
        self.file(&format!("bin/{name}"), 0o755, &content);
        for line in output(Command::new("ldd").arg(path))?.lines() {
            let library = line.split_whitespace().find(|word| word.starts_with('/'));
            if let Some(library) = library {
                let content = fs::read(library).map_err(|e| Failure::at(Path::new(library), e))?;
                self.file(library.trim_start_matches('/'), 0o755, &content);
            }
        }
        Ok(())
    }

    fn copy(&mut self, directory: &Path) -> Result<(), Failure> {
        let name = |path: &Path| path.to_string_lossy().trim_start_matches('/').to_owned();
        self.directory(&name(directory));
        for entry in fs::read_dir(directory)
            .map_err(|e| Failure::at(directory, e))?
            .flatten()
        {
            let path = entry.path();
            if path.is_file() {
                let content = fs::read(&path).map_err(|e| Failure::at(&path, e))?;
                self.file(&name(&path), 0o644, &content);
            }
        }
        Ok(())
    }

    fn entry(&mut self, path: &str, mode: u32, content: &[u8]) {
        self.entries += 1;
        let links = 1;
        let size = u32::try_from(content.len()).expect("a file of a RAM disk is below 4 GB");
        let name_size = u32::try_from(path.len() + 1).expect("paths are short");
        let fields = [
            self.entries,
            mode,
            0,
            0,
            links,
            0,
            size,
            0,
            0,
            0,
            0,
            name_size,
            0,
        ];
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08x}").bytes());
        }
        self.bytes.extend(path.bytes().chain([0]));
        self.pad();
        self.bytes.extend(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.bytes
    }
}

fn download(cache: &Path, tree: &Path) -> Result<(), Failure> {
    let incoming = cache.join("incoming");
    if incoming.exists() {
        fs::remove_dir_all(&incoming).map_err(|e| Failure::at(&incoming, e))?;
    }
    let unpacked = incoming.join("unpacked");
    fs::create_dir_all(&unpacked).map_err(|e| Failure::at(&unpacked, e))?;
    let package = match kernel_package() {
        Ok(package) => package,
        Err(_) => {
            run(Command::new("apt-get").args(["update", "--quiet=2"]))?;
            kernel_package()?
        }
    };
    let mut download = Command::new("apt-get");
    let as_root = ["-o", "APT::Sandbox::User=root", "--quiet=2", "download"];
    run(download.args(as_root).arg(&package).current_dir(&incoming))?;
    let file = only_entry(&incoming, "linux-image-")?;
    run(Command::new("dpkg-deb")
        .arg("--extract")
        .arg(&file)
        .arg(&unpacked))?;
    // The last step, so that a tree which is there is whole.
    fs::rename(&unpacked, tree).map_err(|e| Failure::at(tree, e))?;
    fs::remove_dir_all(&incoming).map_err(|e| Failure::at(&incoming, e))
}

/// What the package of the newest kernel for clouds depends on.
fn kernel_package() -> Result<String, Failure> {
    let newest = "linux-image-cloud-amd64";
    let text = output(Command::new("apt-cache").args(["depends", "--important", newest]))?;
    text.lines()
        .find_map(|line| line.trim().strip_prefix("Depends: "))
        .map(str::to_owned)
        .ok_or_else(|| Failure::new(format!("apt-cache doesn't know {newest}")))
}

fn only_entry(directory: &Path, prefix: &str) -> Result<PathBuf, Failure> {
    let entries = fs::read_dir(directory).map_err(|e| Failure::at(directory, e))?;
    let mut matching = entries.flatten().filter(|entry| {
        let name = entry.file_name();
        name.to_string_lossy().starts_with(prefix)
    });
    matching.next().map(|entry| entry.path()).ok_or_else(|| {
        Failure::new(format!(
            "nothing in {} begins with {prefix:?}",
            directory.display()
        ))
    })
}

fn find(directory: &Path, file: &str) -> Option<PathBuf> {
    for entry in fs::read_dir(directory).ok()?.flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            if let Some(found) = find(&path, file) {
                return Some(found);
            }
        } else if path.file_name().is_some_and(|name| name == file) {
            return Some(path);
        }
    }
    None
}

/// A module's own word: `depends=a,b` between zero bytes.
fn depends(module: &[u8]) -> Vec<String> {
    let key = b"\0depends=";
    let Some(at) = module.windows(key.len()).position(|bytes| bytes == key) else {
        return Vec::new();
    };
    let rest = &module[at + key.len()..];
    let end = rest.iter().position(|byte| *byte == 0).unwrap_or(0);
    let names = String::from_utf8_lossy(&rest[..end]);
    let names = names.split(',').filter(|name| !name.is_empty());
    names.map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_a_sequence_of_padded_headers_names_and_contents() {
        let mut archive = Archive::default();
        archive.file("a/b", 0o644, b"hello");
        let bytes = archive.finish();
        let text = String::from_utf8_lossy(&bytes);
        assert_eq!(bytes.len() % 4, 0);
        assert_eq!(text.matches("070701").count(), 3, "a, a/b and the trailer");
        // 110 bytes of header and a name of 4 with its end are 114: two more to be divisible by 4.
        assert!(
            text.contains("0000000400000000a/b\0\0\0hello\x00\x00\x00070701"),
            "{text:?}"
        );
    }

    #[test]
    fn a_module_names_what_it_needs() {
        assert_eq!(depends(b"x\0depends=a,b_c\0license=GPL\0"), ["a", "b_c"]);
        assert!(depends(b"x\0depends=\0license=GPL\0").is_empty());
        assert!(depends(b"license=GPL\0").is_empty());
    }
}
