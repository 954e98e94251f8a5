//! Points at the edges of a guarantee at which a test kills or stops the process; nothing without the feature `failpoints`.
//!
//! `FAILPOINTS="NAME=1*return(kill)"` in the environment sends SIGKILL when the point is first reached, `return(stop)` SIGSTOP;
//! `return(kill WORKFLOW)` does so for one workflow, where the point knows of one.

/// The process is at the point `name`.
#[cfg(feature = "failpoints")]
pub fn reached(name: &'static str) {
    fail::fail_point!(name, |action| signal(name, action.as_deref()));
}

/// The process is at the point `name`.
#[cfg(not(feature = "failpoints"))]
pub fn reached(_name: &'static str) {}

/// The same in a workflow.
#[cfg(feature = "failpoints")]
pub fn reached_in(name: &'static str, workflow: &str) {
    fail::fail_point!(name, |action| match action.as_deref().and_then(|action| action.split_once(' ')) {
        Some((action, of)) if of == workflow => signal(name, Some(action)),
        Some(_) => {}
        None => signal(name, action.as_deref()),
    });
}

/// The same in a workflow.
#[cfg(not(feature = "failpoints"))]
pub fn reached_in(_name: &'static str, _workflow: &str) {}

#[cfg(feature = "failpoints")]
fn signal(name: &str, action: Option<&str>) {
    tracing::info!("fail point {name} is reached");
    let signal = if action == Some("stop") { libc::SIGSTOP } else { libc::SIGKILL };
    // SAFETY: it only names the signal; what follows from it is the system's doing.
    #[allow(unsafe_code)]
    unsafe {
        libc::raise(signal);
    }
}

/// Takes the points from the environment, as long as the result lives.
#[cfg(feature = "failpoints")]
pub fn from_environment() -> fail::FailScenario<'static> {
    fail::FailScenario::setup()
}
