//! Bytes that lie in a file of memory (`memfd_create(2)`), which the kernel sends without a copy (`sendfile(2)`): of a
//! large response the copy costs as much as all that headgate does for it.
//!
//! Who sends knows such bytes by where they lie ([`file_of`]), so they pass as [`Bytes`] through all that knows nothing
//! of files. Each body has a file of its own, written once: what is still on its way to a client when the body is
//! dropped stays as it was. (A hole punched in one file of many bodies would be less safe: where it covers a page in
//! part, the kernel fills that part with zeros in place.)

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::sync::{PoisonError, RwLock, TryLockError};

use bytes::Bytes;
use memmap2::{Mmap, MmapOptions};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::resource::{Resource, getrlimit};

/// Shorter bytes are sent for less by a copy.
pub const SHORTEST: usize = 64 * 1024;
/// What is left of them by a client that took a part.
const SHORTEST_REST: usize = 8 * 1024;
/// Files at a time: each takes a descriptor, and one of the 65,530 mappings that a process may have by default
/// (`vm.max_map_count`).
const MOST: usize = 8192;
/// They take at most this part of the descriptors that the process may have.
const PART_OF_DESCRIPTORS: u64 = 8;
/// Since Linux 6.3; newer ones may demand it (`vm.memfd_noexec`).
const NOEXEC_SEAL: MFdFlags = MFdFlags::from_bits_retain(nix::libc::MFD_NOEXEC_SEAL);

/// The files by the address of their first byte. The lock is held for one look.
static FILES: RwLock<Files> = RwLock::new(BTreeMap::new());

type Files = BTreeMap<usize, Place>;

#[derive(Clone, Copy)]
struct Place {
    end: usize,
    file: RawFd,
}

/// Bytes in their file, until dropped.
struct Stored {
    mapping: Mmap,
    _file: File,
}

/// Puts bytes into a file of their own. None where they are too short to gain by it, and where the operating system
/// has no room for one file more: then a copy is sent as ever.
pub fn store(bytes: &[u8]) -> Option<Bytes> {
    let limit = |resource| getrlimit(resource).map_or(0, |(soft, _)| soft);
    // A write beyond the limit for the size of a file would end the process.
    if bytes.len() < SHORTEST || bytes.len() as u64 > limit(Resource::RLIMIT_FSIZE) {
        return None;
    }
    let most = (limit(Resource::RLIMIT_NOFILE) / PART_OF_DESCRIPTORS).min(MOST as u64) as usize;
    if FILES.read().unwrap_or_else(PoisonError::into_inner).len() >= most {
        return None;
    }
    Stored::new(bytes).ok().map(Bytes::from_owner)
}

/// The file that these bytes lie in, and where in it they begin.
pub fn file_of(bytes: &[u8]) -> Option<(BorrowedFd<'_>, u64)> {
    if bytes.len() < SHORTEST_REST {
        return None;
    }
    match FILES.try_read() {
        Ok(files) => find(&files, bytes),
        Err(TryLockError::Poisoned(files)) => find(files.get_ref(), bytes),
        // Who sends does not wait for who stores: it copies.
        Err(TryLockError::WouldBlock) => None,
    }
}

fn find<'a>(files: &Files, bytes: &'a [u8]) -> Option<(BorrowedFd<'a>, u64)> {
    let begin = bytes.as_ptr().addr();
    let (first, place) = files.range(..=begin).next_back()?;
    (begin + bytes.len() <= place.end).then(|| (open(place.file, bytes), (begin - first) as u64))
}

/// For as long as the bytes are borrowed from the file.
#[expect(unsafe_code, reason = "who borrows bytes of a file keeps it open")]
fn open(file: RawFd, _bytes: &[u8]) -> BorrowedFd<'_> {
    // SAFETY: the bytes lie in the file's mapping, so its `Stored` lives as long as they are borrowed, and the file
    // with it.
    unsafe { BorrowedFd::borrow_raw(file) }
}

impl Stored {
    fn new(bytes: &[u8]) -> io::Result<Self> {
        let name = c"headgate-cache";
        let file = memfd_create(name, MFdFlags::MFD_CLOEXEC | NOEXEC_SEAL)
            .or_else(|_| memfd_create(name, MFdFlags::MFD_CLOEXEC))?;
        let mut file = File::from(file);
        // Written, and not by way of the mapping: where memory is short, a write says so.
        file.write_all(bytes)?;
        let mapping = map(&file)?;
        let begin = mapping.as_ptr().addr();
        let place = Place { end: begin + mapping.len(), file: file.as_raw_fd() };
        FILES.write().unwrap_or_else(PoisonError::into_inner).insert(begin, place);
        Ok(Self { mapping, _file: file })
    }
}

#[expect(unsafe_code, reason = "a mapping is sound while its file does not change")]
fn map(file: &File) -> io::Result<Mmap> {
    // SAFETY: the file has no name, nobody else has its descriptor, and it is not written any more.
    unsafe { MmapOptions::new().populate().map(file) }
}

impl AsRef<[u8]> for Stored {
    fn as_ref(&self) -> &[u8] {
        &self.mapping
    }
}

impl Drop for Stored {
    fn drop(&mut self) {
        // First, since the address may be another's once the mapping is gone.
        FILES.write().unwrap_or_else(PoisonError::into_inner).remove(&self.mapping.as_ptr().addr());
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    fn letters(count: usize) -> Vec<u8> {
        (b'a'..=b'z').cycle().take(count).collect()
    }

    #[test]
    fn bytes_are_found_in_their_file_by_any_part_of_them() {
        let all = letters(SHORTEST + 1000);
        let stored = store(&all).unwrap();
        assert_eq!(stored, all);
        for part in [0..all.len(), 1..all.len(), 777..SHORTEST, SHORTEST - 9000..all.len()] {
            let (file, from) = find(&FILES.read().unwrap(), &stored[part.clone()]).unwrap();
            assert_eq!(from, part.start as u64);
            let mut read = vec![0; part.len()];
            File::from(file.try_clone_to_owned().unwrap()).read_exact_at(&mut read, from).unwrap();
            assert_eq!(read, all[part]);
        }
        assert!(file_of(&stored[..SHORTEST_REST - 1]).is_none(), "too short to gain");
        assert!(find(&FILES.read().unwrap(), &all).is_none(), "these never were in a file");
    }

    #[test]
    fn short_bytes_stay_where_they_are() {
        assert!(store(&letters(SHORTEST - 1)).is_none());
    }

    #[test]
    fn a_file_ends_with_the_last_of_its_bytes() {
        let stored = store(&letters(SHORTEST)).unwrap();
        let part = stored.slice(100..SHORTEST);
        let begin = stored.as_ptr().addr();
        let is_there = || FILES.read().unwrap().contains_key(&begin);
        drop(stored);
        assert!(is_there());
        drop(part);
        assert!(!is_there());
    }
}
