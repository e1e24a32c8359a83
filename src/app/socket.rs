//! The unix socket of the admin API: for headgate's own user alone, and never another process's.

use std::fs::{self, File, Permissions, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};

const BACKLOG: i32 = 64;
/// Others hold the directory for as long as this function takes.
const LOCK_TRIES: u32 = 100;

/// Binds and listens; where the socket's file is for now stands beside it. What a killed process left is removed. What
/// somebody answers at is not: who `takes_over` listens next to it, and is to rename the file when all else is ready.
pub(super) fn listen(path: &Path, takes_over: bool) -> io::Result<(UnixListener, PathBuf)> {
    // Two that start at once must not each find the other's socket stale.
    let _alone = lock(path)?;
    let mut bound = path.to_owned();
    let address = SockAddr::unix(path)?;
    if fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket()) {
        let probe = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        // Or a live process whose queue is full would hold us up.
        probe.set_nonblocking(true)?;
        match probe.connect(&address) {
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => fs::remove_file(path)?,
            Err(error) if error.kind() == ErrorKind::PermissionDenied => return Err(error),
            _ if takes_over => {
                bound.as_mut_os_string().push(".next");
                // Of one that failed on its way here.
                drop(fs::remove_file(&bound));
            }
            _ => return Err(io::Error::new(ErrorKind::AddrInUse, "another process answers there")),
        }
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&SockAddr::unix(&bound)?)?;
    // Nobody can connect before `listen`, so there is no moment in which others could.
    fs::set_permissions(&bound, Permissions::from_mode(0o600))?;
    socket.listen(BACKLOG)?;
    Ok((socket.into(), bound))
}

fn lock(path: &Path) -> io::Result<File> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let directory = File::open(parent)?;
    for _ in 0..LOCK_TRIES {
        match directory.try_lock() {
            Ok(()) => return Ok(directory),
            Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(10)),
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
    Err(io::Error::new(ErrorKind::WouldBlock, "somebody else has locked its directory"))
}
