//! One kernel map, typed.
//!
//! Place on the line: under execute and readback. Knows nothing of what the entries mean.
//! The one place where keys and values become pointers: a table is made only after the kernel's
//! sizes of the map were compared with the types'.

use crate::layout::Shared;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::raw::c_void;

/// What a number stands for, in `names`: text, filled up with zeros.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct Name(pub(crate) [u8; 128]);

impl Default for Name {
    fn default() -> Self {
        Self([0; 128])
    }
}

impl std::fmt::Debug for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.text())
    }
}

impl Name {
    /// Longer text is cut; who makes names keeps them short.
    pub(crate) fn new(text: &str) -> Self {
        let mut name = Self::default();
        let length = text.len().min(name.0.len());
        name.0[..length].copy_from_slice(&text.as_bytes()[..length]);
        name
    }

    pub(crate) fn text(&self) -> &str {
        let length = self.0.iter().position(|b| *b == 0).unwrap_or(self.0.len());
        std::str::from_utf8(&self.0[..length]).unwrap_or_default()
    }
}

// SAFETY: integers and arrays of them have no padding, and every bit pattern is a value.
unsafe impl Shared for u8 {}
// SAFETY: as above.
unsafe impl Shared for u32 {}
// SAFETY: as above.
unsafe impl Shared for u64 {}
// SAFETY: transparent over an array of bytes.
unsafe impl Shared for Name {}

/// Fewer entries than this are written one by one.
const BATCH_FROM: usize = 8;
/// Entries in one call.
const BATCH: usize = 4096;

pub(crate) struct Table<K, V> {
    fd: OwnedFd,
    name: &'static str,
    max_entries: u32,
    types: PhantomData<fn() -> (K, V)>,
}

impl<K: Shared, V: Shared> Table<K, V> {
    /// Refuses a map whose keys or values have another size.
    pub(crate) fn new(fd: OwnedFd, name: &'static str) -> io::Result<Self> {
        let mut info = libbpf_sys::bpf_map_info::default();
        let mut length = size_of_val(&info) as u32;
        // SAFETY: `info` is as long as `length` says.
        check(unsafe {
            libbpf_sys::bpf_map_get_info_by_fd(fd.as_raw_fd(), &mut info, &mut length)
        })?;
        if (info.key_size as usize, info.value_size as usize) != (size_of::<K>(), size_of::<V>()) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!(
                    "map {name} has keys of {} and values of {} bytes, not {} and {}",
                    info.key_size,
                    info.value_size,
                    size_of::<K>(),
                    size_of::<V>()
                ),
            ));
        }
        Ok(Self {
            fd,
            name,
            max_entries: info.max_entries,
            types: PhantomData,
        })
    }

    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    pub(crate) fn max_entries(&self) -> u32 {
        self.max_entries
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    fn raw(&self) -> i32 {
        self.fd.as_raw_fd()
    }

    pub(crate) fn get(&self, key: &K) -> io::Result<Option<V>> {
        let mut value = V::default();
        // SAFETY: key and value have the map's sizes (`new`); not for per-CPU maps.
        let answer = check(unsafe {
            libbpf_sys::bpf_map_lookup_elem(
                self.raw(),
                key.as_bytes().as_ptr().cast(),
                std::ptr::from_mut(&mut value).cast(),
            )
        });
        match answer {
            Ok(()) => Ok(Some(value)),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn put(&self, key: &K, value: &V) -> io::Result<()> {
        // SAFETY: key and value have the map's sizes (`new`); not for per-CPU maps.
        check(unsafe {
            libbpf_sys::bpf_map_update_elem(
                self.raw(),
                key.as_bytes().as_ptr().cast(),
                value.as_bytes().as_ptr().cast(),
                0,
            )
        })
    }

    pub(crate) fn put_all(&self, entries: &[(K, V)]) -> io::Result<()> {
        if entries.len() < BATCH_FROM {
            return entries
                .iter()
                .try_for_each(|(key, value)| self.put(key, value));
        }
        for chunk in entries.chunks(BATCH) {
            let keys: Vec<K> = chunk.iter().map(|(key, _)| *key).collect();
            let values: Vec<V> = chunk.iter().map(|(_, value)| *value).collect();
            let mut count = chunk.len() as u32;
            // SAFETY: `count` keys and values of the map's sizes; padding-free types.
            check(unsafe {
                libbpf_sys::bpf_map_update_batch(
                    self.raw(),
                    keys.as_ptr().cast(),
                    values.as_ptr().cast(),
                    &mut count,
                    &batch_options(),
                )
            })?;
        }
        Ok(())
    }

    /// A key that isn't there is as good as deleted.
    pub(crate) fn delete(&self, key: &K) -> io::Result<()> {
        // SAFETY: the key has the map's size (`new`).
        let answer = check(unsafe {
            libbpf_sys::bpf_map_delete_elem(self.raw(), key.as_bytes().as_ptr().cast())
        });
        match answer {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
            other => other,
        }
    }

    pub(crate) fn delete_all(&self, keys: &[K]) -> io::Result<()> {
        if keys.len() < BATCH_FROM {
            return keys.iter().try_for_each(|key| self.delete(key));
        }
        for chunk in keys.chunks(BATCH) {
            let mut count = chunk.len() as u32;
            // SAFETY: `count` keys of the map's size.
            let answer = check(unsafe {
                libbpf_sys::bpf_map_delete_batch(
                    self.raw(),
                    chunk.as_ptr().cast(),
                    &mut count,
                    &batch_options(),
                )
            });
            match answer {
                // A batch ends at a key that isn't there: on with the rest, one by one.
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {
                    chunk.iter().try_for_each(|key| self.delete(key))?;
                }
                other => other?,
            }
        }
        Ok(())
    }

    /// Everything in a hash or longest-prefix map. What is written meanwhile may be missing.
    pub(crate) fn entries(&self) -> io::Result<Vec<(K, V)>> {
        let mut entries = Vec::new();
        let mut key: Option<K> = None;
        loop {
            let mut next = K::default();
            let from = key
                .as_ref()
                .map_or(std::ptr::null(), |k| k.as_bytes().as_ptr().cast());
            // SAFETY: both keys have the map's size; a null key asks for the first.
            let answer = check(unsafe {
                libbpf_sys::bpf_map_get_next_key(
                    self.raw(),
                    from,
                    std::ptr::from_mut(&mut next).cast(),
                )
            });
            match answer {
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(entries),
                other => other?,
            }
            if let Some(value) = self.get(&next)? {
                entries.push((next, value));
            }
            key = Some(next);
        }
    }

    /// As `entries`, by thousands in one call: for hash maps and arrays.
    pub(crate) fn entries_in_batches(&self) -> io::Result<Vec<(K, V)>> {
        self.entries_where(|_| true)
    }

    /// As `entries_in_batches`, those whose value is wanted: of millions, the others take no memory.
    pub(crate) fn entries_where(&self, wanted: impl Fn(&V) -> bool) -> io::Result<Vec<(K, V)>> {
        let mut entries = Vec::new();
        // The kernel's place in the map: a hash's bucket, or a key.
        let mut place = vec![0u8; size_of::<K>().max(8)];
        let mut started = false;
        let (mut keys, mut values) = (vec![K::default(); BATCH], vec![V::default(); BATCH]);
        loop {
            let mut count = BATCH as u32;
            let from: *mut c_void = if started {
                place.as_mut_ptr().cast()
            } else {
                std::ptr::null_mut()
            };
            let mut next = place.clone();
            // SAFETY: room for `count` keys and values, and for the place (a u32 or a key).
            let answer = check(unsafe {
                libbpf_sys::bpf_map_lookup_batch(
                    self.raw(),
                    from,
                    next.as_mut_ptr().cast(),
                    keys.as_mut_ptr().cast(),
                    values.as_mut_ptr().cast(),
                    &mut count,
                    &batch_options(),
                )
            });
            let last = match &answer {
                Ok(()) => false,
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => true,
                // A bucket longer than a batch can't be returned at once.
                Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => {
                    let mut all = self.entries()?;
                    all.retain(|(_, value)| wanted(value));
                    return Ok(all);
                }
                Err(_) => return answer.map(|()| Vec::new()),
            };
            let count = count as usize;
            entries.extend(
                keys[..count]
                    .iter()
                    .copied()
                    .zip(values[..count].iter().copied())
                    .filter(|(_, value)| wanted(value)),
            );
            if last {
                return Ok(entries);
            }
            place = next;
            started = true;
        }
    }
}

/// Bytes in one call about a per-CPU array.
const BATCH_BYTES: usize = 1 << 20;

/// Per-CPU arrays: a value has a place per possible CPU, each rounded up to 8 bytes.
impl<V: Shared> Table<u32, V> {
    const STRIDE: usize = size_of::<V>().next_multiple_of(8);

    /// Of so many entries from `first` on, each CPU's value.
    pub(crate) fn per_cpu(&self, first: u32, count: u32) -> io::Result<Vec<Vec<V>>> {
        let mut entries = Vec::with_capacity(count as usize);
        for keys in self.batches(first, count)? {
            let entry_bytes = Self::STRIDE * possible_cpus()?;
            let mut bytes = vec![0u8; entry_bytes * keys.len()];
            // The kernel begins behind this key, or at the first.
            let mut before = keys[0].wrapping_sub(1);
            let from: *mut u32 = match keys[0] {
                0 => std::ptr::null_mut(),
                _ => &mut before,
            };
            let (mut found, mut last, mut length) = (keys.clone(), 0u32, keys.len() as u32);
            // SAFETY: room for `length` keys, as many values per CPU, and a key as the place.
            let answer = check(unsafe {
                libbpf_sys::bpf_map_lookup_batch(
                    self.raw(),
                    from.cast(),
                    std::ptr::from_mut(&mut last).cast(),
                    found.as_mut_ptr().cast(),
                    bytes.as_mut_ptr().cast(),
                    &mut length,
                    &batch_options(),
                )
            });
            match answer {
                // The array ends here.
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) && found == keys => {}
                other => other?,
            }
            entries.extend(bytes.chunks_exact(entry_bytes).map(|entry| {
                let values = entry.chunks_exact(Self::STRIDE);
                let values = values.filter_map(|value| V::from_bytes(&value[..size_of::<V>()]));
                values.collect()
            }));
        }
        Ok(entries)
    }

    /// The same value for so many entries from `first` on, and each CPU.
    pub(crate) fn put_per_cpu(&self, first: u32, count: u32, value: &V) -> io::Result<()> {
        for keys in self.batches(first, count)? {
            let mut bytes = vec![0u8; Self::STRIDE * possible_cpus()? * keys.len()];
            for place in bytes.chunks_exact_mut(Self::STRIDE) {
                place[..size_of::<V>()].copy_from_slice(value.as_bytes());
            }
            let mut length = keys.len() as u32;
            // SAFETY: `length` keys, and as many values per CPU.
            check(unsafe {
                libbpf_sys::bpf_map_update_batch(
                    self.raw(),
                    keys.as_ptr().cast(),
                    bytes.as_ptr().cast(),
                    &mut length,
                    &batch_options(),
                )
            })?;
        }
        Ok(())
    }

    /// Indices, as many at once as one call takes.
    fn batches(&self, first: u32, count: u32) -> io::Result<Vec<Vec<u32>>> {
        let at_once = (BATCH_BYTES / (Self::STRIDE * possible_cpus()?)).max(1);
        let all: Vec<u32> = (first..first + count).collect();
        Ok(all.chunks(at_once).map(<[u32]>::to_vec).collect())
    }
}

fn batch_options() -> libbpf_sys::bpf_map_batch_opts {
    libbpf_sys::bpf_map_batch_opts {
        sz: size_of::<libbpf_sys::bpf_map_batch_opts>() as u64,
        ..Default::default()
    }
}

/// libbpf's answers: 0 or more, or minus an errno.
pub(crate) fn check(answer: i32) -> io::Result<()> {
    number(answer).map(|_| ())
}

pub(crate) fn number(answer: i32) -> io::Result<i32> {
    if answer < 0 {
        Err(io::Error::from_raw_os_error(-answer))
    } else {
        Ok(answer)
    }
}

fn possible_cpus() -> io::Result<usize> {
    libbpf_rs::num_possible_cpus().map_err(|error| io::Error::other(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::Stat;
    use std::os::fd::FromRawFd;

    #[test]
    fn per_cpu_entries_are_read_and_written_in_runs() {
        let at_once = (BATCH_BYTES / (16 * possible_cpus().expect("a number"))) as u32;
        let size = 2 * at_once + 3;
        // SAFETY: no name, no options; the answer is a new descriptor that nobody else owns.
        let fd = unsafe {
            let fd = libbpf_sys::bpf_map_create(
                libbpf_sys::BPF_MAP_TYPE_PERCPU_ARRAY,
                std::ptr::null(),
                4,
                16,
                size,
                std::ptr::null(),
            );
            OwnedFd::from_raw_fd(number(fd).expect("a map"))
        };
        let table: Table<u32, Stat> = Table::new(fd, "test").expect("a table");
        let stat = |packets| Stat { packets, bytes: 1 };
        let runs = [(0, size, 1), (0, 1, 2), (3, 2, 3), (7, at_once + 1, 4)];
        let mut expected = vec![0; size as usize];
        for (first, count, packets) in runs.into_iter().chain([(size - 1, 1, 5), (9, 0, 6)]) {
            table
                .put_per_cpu(first, count, &stat(packets))
                .expect("a write");
            expected[first as usize..][..count as usize].fill(packets);
        }
        let check = |first: u32, count: u32| {
            let seen = table.per_cpu(first, count).expect("a read");
            let expected = &expected[first as usize..][..count as usize];
            assert_eq!(seen.len(), expected.len());
            for (seen, packets) in seen.iter().zip(expected) {
                assert_eq!(seen.len(), possible_cpus().expect("a number"));
                assert!(seen.iter().all(|s| *s == stat(*packets)), "from {first}");
            }
        };
        for (first, count) in [(0, size), (0, 1), (5, 0), (6, 2), (size - 2, 2)] {
            check(first, count);
        }
    }
}
