//! A disk that fails on demand: SQLite's own access to files, with errors in front of its writes and syncs.
//!
//! It is registered as the default of this process, so the store under test knows nothing of it. Each test breaks the files below its
//! own folder only.

#![expect(unsafe_code, reason = "SQLite's interface to the file system is a table of C functions")]

use rusqlite::ffi::{
    SQLITE_FULL, SQLITE_IOERR_FSYNC, SQLITE_IOERR_READ, SQLITE_IOERR_TRUNCATE, SQLITE_IOERR_WRITE, SQLITE_OK,
    sqlite3_file, sqlite3_filename, sqlite3_int64, sqlite3_io_methods, sqlite3_vfs, sqlite3_vfs_find,
    sqlite3_vfs_register,
};
use std::collections::HashMap;
use std::ffi::{CStr, c_int, c_void};
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

/// What fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// No room for what is written.
    Full,
    /// Nothing of a write arrives.
    Write,
    /// Half of a write arrives, and an error is reported.
    TornWrite,
    /// A sync fails, whatever has reached the disk.
    Sync,
    /// A read fails.
    Read,
}

/// Of which file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Of {
    Wal,
    Database,
}

#[derive(Debug)]
struct Plan {
    fault: Fault,
    of: Of,
    /// Calls that go well first.
    spared: u64,
    failed: u64,
}

struct File {
    path: PathBuf,
    original: *const sqlite3_io_methods,
}

#[derive(Default)]
struct Broken {
    /// By the folder whose files they break.
    plans: HashMap<PathBuf, Plan>,
    /// Open files, by the address of SQLite's structure.
    files: HashMap<usize, File>,
    /// Our table for each of SQLite's.
    tables: HashMap<usize, &'static sqlite3_io_methods>,
}

// SAFETY: the pointers are to SQLite's static tables of functions.
unsafe impl Send for Broken {}

static BROKEN: Mutex<Option<Broken>> = Mutex::new(None);

fn with<T>(change: impl FnOnce(&mut Broken) -> T) -> T {
    let mut broken: MutexGuard<'_, Option<Broken>> = BROKEN.lock().unwrap_or_else(PoisonError::into_inner);
    change(broken.get_or_insert_default())
}

/// The disk below a folder. Whole again when dropped.
pub struct Disk {
    folder: PathBuf,
}

impl Disk {
    /// Takes the files of SQLite in a folder; before the first of them is opened.
    pub fn of(folder: &Path) -> Self {
        register();
        // As SQLite names them.
        Disk { folder: folder.canonicalize().unwrap() }
    }

    /// Lets every call of a kind fail, after some that go well, until it is mended.
    pub fn fail(&self, fault: Fault, of: Of, spared: u64) {
        with(|broken| broken.plans.insert(self.folder.clone(), Plan { fault, of, spared, failed: 0 }));
    }

    /// How many calls have failed.
    pub fn failed(&self) -> u64 {
        with(|broken| broken.plans.get(&self.folder).map_or(0, |plan| plan.failed))
    }

    /// Lets everything go well again.
    pub fn mend(&self) {
        with(|broken| broken.plans.remove(&self.folder));
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.mend();
    }
}

fn register() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: the default VFS lives as long as the process. The copy is leaked, so it does too; its functions take whichever VFS
        // they are called with, and ours calls the original's `xOpen` with the original.
        unsafe {
            let original = sqlite3_vfs_find(ptr::null());
            let mut vfs = Box::new(ptr::read(original));
            vfs.zName = c"faults".as_ptr();
            vfs.pNext = ptr::null_mut();
            vfs.xOpen = Some(open);
            vfs.pAppData = (*original).pAppData;
            assert_eq!(sqlite3_vfs_register(Box::leak(vfs), 1), SQLITE_OK);
        }
    });
}

unsafe extern "C" fn open(
    _: *mut sqlite3_vfs,
    name: sqlite3_filename,
    file: *mut sqlite3_file,
    flags: c_int,
    out: *mut c_int,
) -> c_int {
    // SAFETY: the arguments are SQLite's, handed on to the function that they are meant for. It fills in `file`, whose table of
    // functions is then replaced by a copy in which some functions are ours; these find the original by the file's address.
    unsafe {
        let original = sqlite3_vfs_find(c"unix".as_ptr());
        let Some(open) = (*original).xOpen else { return SQLITE_IOERR_READ };
        let opened = open(original, name, file, flags, out);
        if opened == SQLITE_OK && !name.is_null() && !(*file).pMethods.is_null() {
            let path = PathBuf::from(CStr::from_ptr(name).to_string_lossy().into_owned());
            let methods = (*file).pMethods;
            with(|broken| {
                broken.files.insert(file as usize, File { path, original: methods });
                let table = broken.tables.entry(methods as usize).or_insert_with(|| {
                    let mut table = Box::new(ptr::read(methods));
                    table.xClose = Some(close);
                    table.xRead = Some(read);
                    table.xWrite = Some(write);
                    table.xTruncate = Some(truncate);
                    table.xSync = Some(sync);
                    Box::leak(table)
                });
                (*file).pMethods = *table;
            });
        }
        opened
    }
}

/// SQLite's own functions for a file, and whether a call is to fail.
fn consult(file: *mut sqlite3_file, fails: &[Fault]) -> (&'static sqlite3_io_methods, Option<Fault>) {
    with(|broken| {
        let Broken { plans, files, .. } = broken;
        let known = &files[&(file as usize)];
        // SAFETY: SQLite's tables are static.
        let original = unsafe { &*known.original };
        let of = if known.path.to_string_lossy().ends_with("-wal") { Of::Wal } else { Of::Database };
        let Some(plan) = known.path.parent().and_then(|folder| plans.get_mut(folder)) else { return (original, None) };
        if plan.of != of || !fails.contains(&plan.fault) {
            return (original, None);
        }
        if plan.spared > 0 {
            plan.spared -= 1;
            return (original, None);
        }
        plan.failed += 1;
        (original, Some(plan.fault))
    })
}

unsafe extern "C" fn close(file: *mut sqlite3_file) -> c_int {
    let (original, _) = consult(file, &[]);
    with(|broken| broken.files.remove(&(file as usize)));
    // SAFETY: SQLite's function with SQLite's argument, as in all that follow.
    original.xClose.map_or(SQLITE_OK, |close| unsafe { close(file) })
}

unsafe extern "C" fn read(file: *mut sqlite3_file, to: *mut c_void, amount: c_int, offset: sqlite3_int64) -> c_int {
    match consult(file, &[Fault::Read]) {
        (_, Some(_)) => SQLITE_IOERR_READ,
        // SAFETY: see `close`.
        (original, None) => original.xRead.map_or(SQLITE_IOERR_READ, |read| unsafe { read(file, to, amount, offset) }),
    }
}

unsafe extern "C" fn write(
    file: *mut sqlite3_file,
    from: *const c_void,
    amount: c_int,
    offset: sqlite3_int64,
) -> c_int {
    let (original, fault) = consult(file, &[Fault::Full, Fault::Write, Fault::TornWrite]);
    let write = |amount| {
        // SAFETY: see `close`; `amount` is at most what SQLite says there is.
        original.xWrite.map_or(SQLITE_IOERR_WRITE, |write| unsafe { write(file, from, amount, offset) })
    };
    match fault {
        None => write(amount),
        Some(Fault::Full) => SQLITE_FULL,
        Some(Fault::TornWrite) => {
            write(amount / 2);
            SQLITE_IOERR_WRITE
        }
        Some(_) => SQLITE_IOERR_WRITE,
    }
}

unsafe extern "C" fn truncate(file: *mut sqlite3_file, size: sqlite3_int64) -> c_int {
    match consult(file, &[Fault::Write]) {
        (_, Some(_)) => SQLITE_IOERR_TRUNCATE,
        // SAFETY: see `close`.
        (original, None) => original.xTruncate.map_or(SQLITE_OK, |truncate| unsafe { truncate(file, size) }),
    }
}

unsafe extern "C" fn sync(file: *mut sqlite3_file, flags: c_int) -> c_int {
    match consult(file, &[Fault::Sync]) {
        (_, Some(_)) => SQLITE_IOERR_FSYNC,
        // SAFETY: see `close`.
        (original, None) => original.xSync.map_or(SQLITE_OK, |sync| unsafe { sync(file, flags) }),
    }
}
