//! Child processes: run to the end with a clear error, or kept running and never left behind.

use anyhow::{Context, bail};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// The cargo that runs us.
pub fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// Runs a command to its end; an error names it.
pub fn succeed(command: &mut Command) -> anyhow::Result<()> {
    let status = status(command)?;
    if !status.success() {
        bail!("`{}` failed: {status}", describe(command));
    }
    Ok(())
}

/// The same for commands whose output matters only when they fail: then it is part of the error.
pub fn succeed_quietly(command: &mut Command) -> anyhow::Result<()> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("can't run `{}`", describe(command)))?;
    if !output.status.success() {
        let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).trim_end().to_owned());
        bail!("`{}` failed: {}\n{}", describe(command), output.status, text.join("\n").trim());
    }
    Ok(())
}

/// Runs a command to its end.
pub fn status(command: &mut Command) -> anyhow::Result<ExitStatus> {
    command.status().with_context(|| format!("can't run `{}`", describe(command)))
}

fn describe(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// Finds a program, or says what installs it.
pub fn need(program: &str, install: &str) -> anyhow::Result<PathBuf> {
    find(program).with_context(|| format!("`{program}` is missing; on Debian: {install}"))
}

/// Finds a program on PATH.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(program)).find(|file| file.is_file())
}

/// Whether we may install packages.
pub fn is_root() -> bool {
    // SAFETY: geteuid has no preconditions and can't fail.
    #[allow(unsafe_code)]
    let uid = unsafe { libc::geteuid() };
    uid == 0
}

/// A child process that ends with this one, however this one ends.
pub struct Daemon {
    name: String,
    child: Option<Child>,
}

impl Daemon {
    /// Starts a process that is killed when the daemon is dropped.
    pub fn start(name: &str, command: &mut Command) -> anyhow::Result<Self> {
        command.stdin(Stdio::null());
        // SAFETY: prctl and getppid are async-signal-safe, and nothing else happens between fork and exec.
        #[allow(unsafe_code)]
        unsafe {
            let parent = std::process::id();
            command.pre_exec(move || {
                // The kernel kills the child when the thread that started it ends: also after a SIGKILL of ours.
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                if libc::getppid() as u32 == parent { Ok(()) } else { Err(std::io::ErrorKind::Interrupted.into()) }
            });
        }
        let child = command.spawn().with_context(|| format!("can't start {name}: `{}`", describe(command)))?;
        Ok(Daemon { name: name.to_owned(), child: Some(child) })
    }

    pub fn id(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// An error if the process has ended by itself.
    pub fn check(&mut self) -> anyhow::Result<()> {
        if let Some(child) = &mut self.child
            && let Some(status) = child.try_wait()?
        {
            bail!("{} has ended: {status}", self.name);
        }
        Ok(())
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// SIGTERM, and SIGKILL after `patience`.
    pub fn stop(&mut self, patience: Duration) {
        if let Some(id) = self.id() {
            // SAFETY: the child has not been waited for, so its id is not anybody else's.
            #[allow(unsafe_code)]
            unsafe {
                libc::kill(id as i32, libc::SIGTERM);
            }
            let begun = Instant::now();
            while begun.elapsed() < patience {
                match self.child.as_mut().map(Child::try_wait) {
                    Some(Ok(None)) => std::thread::sleep(Duration::from_millis(20)),
                    _ => break,
                }
            }
        }
        self.kill();
    }

    /// Lets the process go on by itself; answers its id.
    pub fn leave_running(mut self) -> Option<u32> {
        self.child.take().map(|child| child.id())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Calls `check` every few milliseconds until it answers something, `patience` at most.
pub fn wait_for<T>(
    what: &str,
    patience: Duration,
    mut check: impl FnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let begun = Instant::now();
    loop {
        if let Some(found) = check()? {
            return Ok(found);
        }
        if begun.elapsed() > patience {
            bail!("waited {patience:?} in vain for {what}");
        }
        std::thread::sleep(Duration::from_millis(30));
    }
}
