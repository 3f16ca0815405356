//! Children that can't outlive this process.

use super::Namespace;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::sync::{Mutex, OnceLock, mpsc};
use std::thread;

struct Request {
    command: Command,
    namespace: Namespace,
    started: mpsc::Sender<io::Result<Child>>,
}

/// Starts it in the namespace. The kernel kills it when the *thread* that has started it ends, which a
/// test's thread may do long before its lab; so one thread, which ends with the process, starts them all.
pub fn spawn_daemon(command: Command, namespace: Namespace) -> io::Result<Child> {
    static STARTER: OnceLock<Mutex<mpsc::Sender<Request>>> = OnceLock::new();
    let starter = STARTER.get_or_init(|| {
        let (sender, requests) = mpsc::channel::<Request>();
        thread::spawn(move || {
            for request in requests {
                let child = start(request.command, &request.namespace);
                // Whoever asked waits for it.
                let _ = request.started.send(child);
            }
        });
        Mutex::new(sender)
    });
    let (started, answer) = mpsc::channel();
    let request = Request {
        command,
        namespace,
        started,
    };
    let gone = |_| io::Error::other("the thread that starts daemons has ended");
    let sender = starter.lock().expect("sending doesn't panic").clone();
    sender.send(request).map_err(|e| gone(e.to_string()))?;
    answer.recv().map_err(|e| gone(e.to_string()))?
}

fn start(mut command: Command, namespace: &Namespace) -> io::Result<Child> {
    let parent = std::process::id();
    let namespace = namespace.clone();
    let prepare = move || {
        namespace.join()?;
        // SAFETY: takes no pointers.
        if unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // It may have died just before; then nobody would tell us.
        match std::os::unix::process::parent_id() == parent {
            true => Ok(()),
            false => Err(io::ErrorKind::NotFound.into()),
        }
    };
    // SAFETY: between fork and exec it makes three system calls; it allocates nothing and takes no lock.
    unsafe { command.pre_exec(prepare) };
    command.spawn()
}
