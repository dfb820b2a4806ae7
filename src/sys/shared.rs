//! Memory that several processes map and that outlives each of them: a file without a name, and its
//! first cells as numbers of 64 bits.
#![allow(unsafe_code, reason = "sys is where unsafe code lives")]

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::ops::Deref;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::AtomicU64;

use super::check;

/// No descriptor of the file can make it shorter or longer any more, nor take this back.
const FIXED: libc::c_int = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;

/// `memfd_create(2)`, then `ftruncate(2)` and `fcntl(F_ADD_SEALS)`: a file of so many zero bytes, whose
/// size stays. Pages that nobody has written to cost no memory. It is closed on exec; the name is for
/// people (`/proc/PID/fd`).
///
/// # Errors
/// EMFILE, ENFILE, ENOMEM; EINVAL for a name of more than 249 bytes; EFBIG over RLIMIT_FSIZE.
pub fn memory_file(name: &str, bytes: u64) -> io::Result<File> {
    let name = CString::new(name)?;
    const FLAGS: libc::c_uint = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    // SAFETY: `name` ends with a NUL and outlives the call, which only reads it.
    let descriptor = check(i64::from(unsafe {
        libc::memfd_create(name.as_ptr(), FLAGS)
    }))?;
    let descriptor = i32::try_from(descriptor).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made it, and nobody else knows of it.
    let file = File::from(unsafe { OwnedFd::from_raw_fd(descriptor) });
    file.set_len(bytes)?;
    // SAFETY: F_ADD_SEALS takes an int and touches no memory of ours.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, FIXED) };
    check(i64::from(result))?;
    Ok(file)
}

/// The beginning of a file, shared with whoever else maps it.
#[derive(Debug)]
pub struct Cells {
    start: NonNull<AtomicU64>,
    count: usize,
}

// SAFETY: the memory belongs to no thread, and all that can be had of it are shared atomics.
unsafe impl Send for Cells {}
// SAFETY: as above.
unsafe impl Sync for Cells {}

impl Cells {
    /// `mmap(2)` with MAP_SHARED, after `fcntl(F_GET_SEALS)`: the first `count` cells of a file of
    /// [`memory_file`].
    ///
    /// # Errors
    /// `InvalidInput` for a file that is shorter, or whose size somebody could change: whoever touches
    /// a page behind its end is killed. Else ENOMEM.
    pub fn map(file: &File, count: usize) -> io::Result<Self> {
        let bytes = count
            .checked_mul(size_of::<u64>())
            .filter(|bytes| *bytes > 0);
        let bytes = bytes.ok_or(io::ErrorKind::InvalidInput)?;
        // SAFETY: F_GET_SEALS takes nothing more and touches no memory of ours.
        let seals = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GET_SEALS) };
        let is_fixed = seals >= 0 && seals & FIXED == FIXED;
        if !is_fixed || file.metadata()?.len() < bytes as u64 {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let descriptor = file.as_fd().as_raw_fd();
        let rights = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at a place that the kernel picks touches none of ours.
        let start = unsafe {
            libc::mmap(
                ptr::null_mut(),
                bytes,
                rights,
                libc::MAP_SHARED,
                descriptor,
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, count })
    }
}

impl Deref for Cells {
    type Target = [AtomicU64];

    fn deref(&self) -> &[AtomicU64] {
        // SAFETY: `count` cells are mapped until this is dropped, page-aligned, of a file that can get no
        // shorter; any bits are a number, and other processes are only like other threads to atomics.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.count) }
    }
}

impl Drop for Cells {
    fn drop(&mut self) {
        // SAFETY: this mapping was made by `map` with this length, and what borrows from it is gone.
        let result =
            unsafe { libc::munmap(self.start.as_ptr().cast(), self.count * size_of::<u64>()) };
        debug_assert_eq!(result, 0, "it was mapped");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;
    use std::sync::atomic::Ordering;

    #[test]
    fn what_one_mapping_writes_the_other_and_the_file_have() {
        let file = memory_file("test", 1 << 20).unwrap();
        let first = Cells::map(&file, 512).unwrap();
        let second = Cells::map(&file.try_clone().unwrap(), 1 << 17).unwrap();
        first[511].store(7, Ordering::Relaxed);
        assert_eq!(second[511].load(Ordering::Relaxed), 7);
        drop(first);
        let mut bytes = [0; 8];
        file.read_exact_at(&mut bytes, 511 * 8).unwrap();
        assert_eq!(u64::from_ne_bytes(bytes), 7);
        file.write_all_at(&9_u64.to_ne_bytes(), 0).unwrap();
        assert_eq!(second[0].load(Ordering::Relaxed), 9);
    }

    #[test]
    fn only_files_that_stay_as_they_are_can_be_mapped() {
        let file = memory_file("test", 4096).unwrap();
        assert!(file.set_len(0).is_err() && file.set_len(8192).is_err());
        assert!(Cells::map(&file, 513).is_err());
        assert!(Cells::map(&file, 0).is_err());
        assert!(Cells::map(&file, usize::MAX).is_err());
        let other = tempfile::tempfile().unwrap();
        other.set_len(4096).unwrap();
        assert!(Cells::map(&other, 512).is_err());
    }
}
